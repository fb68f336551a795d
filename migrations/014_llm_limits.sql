-- Limits of what an organisation, and those in it, may ask of models: rates, concurrency, money.
--
-- Each replica takes shares of what is left and lets requests in against them in memory. A share that a
-- replica holds counts as used for everybody else. What was spent is added in the transaction that stores
-- the requests' rows, so that both agree whatever happens to a replica.

CREATE TABLE llm_limits (
    org_id uuid NOT NULL CONSTRAINT llm_limits_org_fkey REFERENCES organisations (id) ON DELETE CASCADE,
    kind text NOT NULL
        CONSTRAINT llm_limits_kind_check CHECK (kind IN ('organisation', 'user', 'api_key', 'weaver', 'model')),
    -- An id, a pattern of model names, or `all` for the organisation.
    subject text NOT NULL,
    requests_per_minute bigint CONSTRAINT llm_limits_requests_check CHECK (requests_per_minute >= 0),
    tokens_per_minute bigint CONSTRAINT llm_limits_tokens_check CHECK (tokens_per_minute >= 0),
    concurrent bigint CONSTRAINT llm_limits_concurrent_check CHECK (concurrent >= 0),
    day_nanousd bigint CONSTRAINT llm_limits_day_check CHECK (day_nanousd >= 0),
    month_nanousd bigint CONSTRAINT llm_limits_month_check CHECK (month_nanousd >= 0),
    -- A model without a price cannot be held by a budget.
    refuse_unpriced boolean NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT llm_limits_pkey PRIMARY KEY (org_id, kind, subject)
);

-- One row for each measure of each limit and window. Of an API key's own budget, which holds in every
-- organisation, kind is `key_budget` and the organisation is the nil UUID.
CREATE TABLE llm_limit_uses (
    org_id uuid NOT NULL,
    kind text NOT NULL,
    subject text NOT NULL,
    measure text NOT NULL CONSTRAINT llm_limit_uses_measure_check
        CHECK (measure IN ('requests', 'tokens', 'concurrent', 'day', 'month')),
    -- Of a budget, the day or month in UTC that it is for; of the others the beginning of 1970.
    window_start timestamptz NOT NULL,
    -- Of a budget: the cost of all rows of the window.
    used bigint NOT NULL DEFAULT 0,
    -- Of a rate: when the whole of it is there again.
    full_at timestamptz NOT NULL,
    CONSTRAINT llm_limit_uses_pkey PRIMARY KEY (org_id, kind, subject, measure, window_start)
);

-- Servers that hold shares. One that does not say in time that it lives loses them all.
CREATE TABLE llm_limit_replicas (
    id uuid CONSTRAINT llm_limit_replicas_pkey PRIMARY KEY,
    name text NOT NULL,
    expires_at timestamptz NOT NULL
);

CREATE TABLE llm_limit_leases (
    org_id uuid NOT NULL,
    kind text NOT NULL,
    subject text NOT NULL,
    measure text NOT NULL,
    window_start timestamptz NOT NULL,
    replica_id uuid NOT NULL
        CONSTRAINT llm_limit_leases_replica_fkey REFERENCES llm_limit_replicas (id) ON DELETE CASCADE,
    -- Below zero: it has spent more than it held, and has not yet taken the rest.
    held bigint NOT NULL,
    CONSTRAINT llm_limit_leases_pkey PRIMARY KEY (org_id, kind, subject, measure, window_start, replica_id),
    CONSTRAINT llm_limit_leases_uses_fkey FOREIGN KEY (org_id, kind, subject, measure, window_start)
        REFERENCES llm_limit_uses (org_id, kind, subject, measure, window_start) ON DELETE CASCADE
);
CREATE INDEX llm_limit_leases_replica_idx ON llm_limit_leases (replica_id);

-- Takes a share for a replica: at least `need`, or nothing. `wanted` is what it would like to have. Each
-- statement in here sees what was committed before it began, and the row of the use is locked first, so
-- that what is left is counted right.
CREATE FUNCTION llm_limit_take(
    o uuid, k text, s text, m text, w timestamptz, replica uuid, cap bigint, need bigint, wanted bigint,
    moment timestamptz
) RETURNS TABLE (granted bigint, rest bigint, others bigint, replicas bigint) LANGUAGE plpgsql AS $$
DECLARE
    used_now bigint;
    full_from timestamptz;
    mine bigint;
BEGIN
    INSERT INTO llm_limit_uses (org_id, kind, subject, measure, window_start, full_at)
    VALUES (o, k, s, m, w, moment) ON CONFLICT DO NOTHING;
    SELECT u.used, u.full_at INTO used_now, full_from FROM llm_limit_uses u
     WHERE u.org_id = o AND u.kind = k AND u.subject = s AND u.measure = m AND u.window_start = w FOR UPDATE;
    others := 0;
    granted := 0;
    IF m IN ('requests', 'tokens') THEN
        full_from := greatest(full_from, moment);
        rest := floor(cap * (1 - extract(epoch FROM full_from - moment) / 60));
        IF rest >= need AND cap > 0 THEN
            granted := least(rest, greatest(need, wanted));
            UPDATE llm_limit_uses u
               SET full_at = full_from + make_interval(secs => granted * 60.0 / cap)
             WHERE u.org_id = o AND u.kind = k AND u.subject = s AND u.measure = m AND u.window_start = w;
        END IF;
    ELSE
        FOR attempt IN 1..2 LOOP
            SELECT coalesce(sum(greatest(l.held, 0)) FILTER (WHERE l.replica_id <> replica), 0),
                   coalesce(sum(l.held) FILTER (WHERE l.replica_id = replica), 0)
              INTO others, mine FROM llm_limit_leases l
             WHERE l.org_id = o AND l.kind = k AND l.subject = s AND l.measure = m AND l.window_start = w;
            -- Who has spent beyond its share takes that first.
            rest := cap - used_now - others - mine;
            EXIT WHEN rest >= need;
            -- What the dead held comes back.
            DELETE FROM llm_limit_replicas r WHERE r.expires_at <= moment AND r.id <> replica;
            EXIT WHEN NOT FOUND;
        END LOOP;
        IF rest >= need THEN
            granted := least(rest, greatest(need, wanted));
            INSERT INTO llm_limit_leases AS l (org_id, kind, subject, measure, window_start, replica_id, held)
            VALUES (o, k, s, m, w, replica, granted)
            ON CONFLICT ON CONSTRAINT llm_limit_leases_pkey DO UPDATE SET held = l.held + excluded.held;
        END IF;
    END IF;
    rest := rest - granted;
    SELECT count(*) INTO replicas FROM llm_limit_replicas r WHERE r.expires_at > moment;
    RETURN NEXT;
END
$$;

-- Gives a share back.
CREATE FUNCTION llm_limit_give_back(
    o uuid, k text, s text, m text, w timestamptz, replica uuid, cap bigint, amount bigint
) RETURNS void LANGUAGE sql AS $$
    UPDATE llm_limit_uses SET full_at = full_at - make_interval(secs => amount * 60.0 / greatest(cap, 1))
     WHERE org_id = o AND kind = k AND subject = s AND measure = m AND window_start = w
       AND m IN ('requests', 'tokens');
    UPDATE llm_limit_leases SET held = held - amount
     WHERE org_id = o AND kind = k AND subject = s AND measure = m AND window_start = w
       AND replica_id = replica;
$$;

-- Adds what a request has cost to the budgets that are kept, out of the share of its replica.
CREATE FUNCTION llm_limit_charge(
    o uuid, k text, s text, m text, w timestamptz, replica uuid, cost bigint
) RETURNS void LANGUAGE sql AS $$
    UPDATE llm_limit_uses SET used = used + cost
     WHERE org_id = o AND kind = k AND subject = s AND measure = m AND window_start = w;
    UPDATE llm_limit_leases SET held = held - cost
     WHERE org_id = o AND kind = k AND subject = s AND measure = m AND window_start = w
       AND replica_id = replica;
$$;
