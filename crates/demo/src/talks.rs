//! What is said in the conversations.

/// One conversation, of which several threads are made.
pub(crate) struct Talk {
    pub(crate) title: &'static str,
    /// What further ones are called.
    pub(crate) titles: &'static [&'static str],
    pub(crate) project: &'static str,
    pub(crate) branch: &'static str,
    pub(crate) tags: &'static [&'static str],
    /// `done`, `working` or `failed`.
    pub(crate) state: &'static str,
    pub(crate) turns: &'static [Says],
}

pub(crate) enum Says {
    User(&'static str),
    Agent(&'static str),
    /// Name, arguments, result.
    Tool(&'static str, &'static str, &'static str),
}

use Says::{Agent, Tool, User};

pub(crate) fn all() -> [Talk; 8] {
    [
        Talk {
            title: "Find out why the cart page crashes for ended offers",
            titles: &[
                "Cart: show lines whose offer has ended",
                "A price that is missing",
                "Total of an empty cart",
                "Move the cart's currency into the context",
                "Cart test that fails on Mondays",
                "Make the cart line a component of its own",
                "Why is the cart rendered twice?",
            ],
            project: "shop-web",
            branch: "cart-ended-offers",
            tags: &["bug", "cart"],
            state: "done",
            turns: &[
                User(
                    "`CartPage` throws *Cannot read properties of undefined (reading 'price')* for some customers. The issue says it began with the release of last week. Please find the cause and fix it.",
                ),
                Tool(
                    "read_file",
                    r#"{"path":"src/cart/useCart.ts","from":20,"to":40}"#,
                    "export function selectOffer(line: Line, offers: Offer[]) {\n  const known = offers.find((offer) => offer.sku === line.sku);\n  // An offer may have ended while it was in the cart.\n  return known.price;\n}",
                ),
                Tool(
                    "run",
                    r#"{"command":"git log --oneline -5 -- src/cart/useCart.ts"}"#,
                    "9f2c1e7 Use the list price when there is no offer\n41d0b6a Cart: keep lines whose offer has ended\n0ac77f3 Types of offers\n5be9210 Cart in its own folder\n77c1a04 First version",
                ),
                Agent(
                    "The cause is in `selectOffer`: since **41d0b6a** lines stay in the cart when their offer has ended, but the function still takes for granted that it finds one.\n\n| case | before | since 41d0b6a |\n|---|---|---|\n| offer runs | price | price |\n| offer ended | line was removed | **throws** |\n\nI suggest that it falls back to the list price:\n\n```ts\nexport function selectOffer(line: Line, offers: Offer[]): Price {\n  const offer = offers.find((offer) => offer.sku === line.sku);\n  // An offer may have ended while it was in the cart.\n  return offer?.price ?? line.listPrice;\n}\n```\n\nShall I also tell the customer that the price has changed?",
                ),
                User("Yes, with the existing `PriceChanged` note. And a test, please."),
                Tool(
                    "edit_file",
                    r#"{"path":"src/cart/useCart.ts","replace":"return known.price;","with":"return offer?.price ?? line.listPrice;"}"#,
                    "1 replacement",
                ),
                Tool(
                    "run",
                    r#"{"command":"npm test -- cart"}"#,
                    " PASS  src/cart/useCart.test.ts\n  ✓ takes the price of the offer (3 ms)\n  ✓ falls back to the list price when the offer has ended (2 ms)\n PASS  src/cart/CartPage.test.tsx (5.1 s)\n\nTests:       14 passed, 14 total",
                ),
                Agent(
                    "Done, in two commits:\n\n1. `selectOffer` falls back to the list price;\n2. `CartPage` shows `PriceChanged` for such lines.\n\nAll **14** tests of the cart pass. The issue can be resolved in the next release.",
                ),
            ],
        },
        Talk {
            title: "Payments: answer a repeated request with the first payment",
            titles: &[
                "Idempotency keys that collide",
                "Outbox events that are sent twice",
                "Declined cards are shown as errors",
                "What happens when the provider times out?",
                "Test double of the payment provider",
                "Refunds in two currencies",
                "Reconcile payments once a day",
            ],
            project: "checkout-api",
            branch: "payments-idempotency",
            tags: &["payments", "database"],
            state: "done",
            turns: &[
                User(
                    "We see `IntegrityError: duplicate key value violates unique constraint \"payments_idempotency_key\"` about twice an hour. Customers who click twice get a 500. What should happen is that the second request gets the first payment.",
                ),
                Tool(
                    "search",
                    r#"{"query":"payments_idempotency_key"}"#,
                    "migrations/0042_payments.sql:18\ncheckout/payments.py:118\ntests/test_payments.py:77",
                ),
                Tool(
                    "read_file",
                    r#"{"path":"checkout/payments.py","from":110,"to":126}"#,
                    "async def create_payment(order: Order, method: Method) -> Payment:\n    payment = Payment(order_id=order.id, amount=order.total, key=order.payment_key)\n    async with session.begin():\n        session.add(payment)\n    await outbox.publish(PaymentCreated(payment.id))\n    return payment",
                ),
                Agent(
                    "Two requests with one key run side by side; the second fails on the constraint, which is right, but nobody handles it. I would let the database decide and read what is there:\n\n```python\nasync def create_payment(order: Order, method: Method) -> Payment:\n    statement = (\n        insert(Payment)\n        .values(order_id=order.id, amount=order.total, key=order.payment_key)\n        .on_conflict_do_nothing(constraint=\"payments_idempotency_key\")\n        .returning(Payment)\n    )\n    async with session.begin():\n        payment = await session.scalar(statement)\n        if payment is None:\n            return await session.scalar(select(Payment).where(Payment.key == order.payment_key))\n        session.add(OutboxEvent.of(PaymentCreated(payment.id)))\n    return payment\n```\n\nNote that the event moves **into the transaction**: until now a crash between the two lines lost it.",
                ),
                User("Good catch. Do it."),
                Tool(
                    "run",
                    r#"{"command":"pytest -q tests/test_payments.py"}"#,
                    "....................                                                     [100%]\n20 passed in 4.31s",
                ),
                Agent(
                    "All 20 tests pass, among them a new one that sends the same request from 16 tasks at once and finds one payment and one event.",
                ),
            ],
        },
        Talk {
            title: "Search: results are missing when a shard is empty",
            titles: &[
                "Rank newer products higher",
                "Suggest with umlauts",
                "Index lag after a deploy",
                "Synonyms from a file",
                "Measure the time of each shard",
                "Facets of nested categories",
                "Make the index name a setting",
            ],
            project: "search-service",
            branch: "fix-merge",
            tags: &["search", "go"],
            state: "working",
            turns: &[
                User(
                    "`mergeTopK` panics with *index out of range [0] with length 0*. I think it is about empty shards.",
                ),
                Tool(
                    "read_file",
                    r#"{"path":"internal/rank/merge.go"}"#,
                    "func mergeTopK(shards [][]Hit, k int) []Hit {\n\theads := make([]int, len(shards))\n\tout := make([]Hit, 0, k)\n\tfor len(out) < k {\n\t\tbest := shards[0][heads[0]]\n\t\tfrom := 0\n\t\tfor i, shard := range shards[1:] {\n\t\t\tif shard[heads[i+1]].Score > best.Score {\n\t\t\t\tbest, from = shard[heads[i+1]], i+1\n\t\t\t}\n\t\t}\n\t\tout = append(out, best)\n\t\theads[from]++\n\t}\n\treturn out\n}",
                ),
                Agent(
                    "You are right, and it is worse: it also panics when all shards *together* have fewer than `k` hits. A heap over the shards that still have something does both, in *O(k log n)*:\n\n```go\nfunc mergeTopK(shards [][]Hit, k int) []Hit {\n\tqueue := make(heads, 0, len(shards))\n\tfor _, shard := range shards {\n\t\tif len(shard) > 0 {\n\t\t\tqueue = append(queue, shard)\n\t\t}\n\t}\n\theap.Init(&queue)\n\tout := make([]Hit, 0, k)\n\tfor len(out) < k && len(queue) > 0 {\n\t\tout = append(out, queue[0][0])\n\t\tif queue[0] = queue[0][1:]; len(queue[0]) == 0 {\n\t\t\theap.Pop(&queue)\n\t\t} else {\n\t\t\theap.Fix(&queue, 0)\n\t\t}\n\t}\n\treturn out\n}\n```",
                ),
                Tool(
                    "run",
                    r#"{"command":"go test ./internal/rank -run Merge -fuzz FuzzMerge -fuzztime 20s"}"#,
                    "fuzz: elapsed: 20s, execs: 1482113 (74102/sec), new interesting: 11 (total: 38)\nPASS\nok  \tacme/search/internal/rank\t20.412s",
                ),
            ],
        },
        Talk {
            title: "Upgrade the Android app to the new navigation",
            titles: &[
                "ANR in the image cache",
                "Session after process death",
                "Unknown order states",
                "Dark theme of the product page",
                "Smaller images on slow networks",
                "Baseline profile",
                "Crash on rotation during checkout",
            ],
            project: "mobile-app",
            branch: "navigation-3",
            tags: &["android", "upgrade"],
            state: "failed",
            turns: &[
                User(
                    "Please move the app from fragments to the new navigation, screen by screen. Begin with `ProductScreen`.",
                ),
                Tool(
                    "list_files",
                    r#"{"path":"app/src/main/java/com/acme/shop/product"}"#,
                    "Gallery.kt\nProductFragment.kt\nProductScreen.kt\nProductViewModel.kt",
                ),
                Agent(
                    "`ProductFragment` does three things besides showing the screen:\n\n- it reads `sku` from the arguments,\n- it keeps the scroll position,\n- it reports the screen to the analytics.\n\nI will make a typed route of the first, let the framework do the second, and move the third to the graph, so that no screen can forget it.\n\n> The deep link `shop://product/{sku}` stays as it is.",
                ),
                Tool(
                    "edit_file",
                    r#"{"path":"app/src/main/java/com/acme/shop/product/ProductRoute.kt","create":true}"#,
                    "created, 31 lines",
                ),
                Tool(
                    "run",
                    r#"{"command":"./gradlew :app:compileDebugKotlin"}"#,
                    "e: ProductRoute.kt:14:5 Unresolved reference 'Serializable'\n\nFAILURE: Build failed with an exception.\n> Compilation error. See log for more details\n\nBUILD FAILED in 24s",
                ),
                Agent("The serialization plugin is not applied in `:app`. I add it and try again."),
            ],
        },
        Talk {
            title: "Invoices: explain the state machine",
            titles: &[
                "Deadlock in the dunning job",
                "Round totals like the ledger does",
                "Statements of 40,000 accounts in little memory",
                "Bank import with impossible dates",
                "Ledger client: retries with a limit",
                "Move the dunning levels into the database",
                "Which invoices were sent twice?",
            ],
            project: "billing-worker",
            branch: "main",
            tags: &["billing", "question"],
            state: "done",
            turns: &[
                User(
                    "I am new here. What states can an invoice have, and who moves it from one to the next?",
                ),
                Tool(
                    "search",
                    r#"{"query":"enum State","path":"src/main/java/com/acme/billing"}"#,
                    "Invoice.java:31: public enum State { DRAFT, FINAL, SENT, PAID, CANCELLED }",
                ),
                Tool(
                    "search",
                    r#"{"query":"State\\.(FINAL|SENT|PAID|CANCELLED)"}"#,
                    "InvoiceService.java:149\nMailJob.java:62\nBankImport.java:77\nInvoiceService.java:171",
                ),
                Agent(
                    "An invoice has five states:\n\n```text\nDRAFT ──finalise──▶ FINAL ──mail──▶ SENT ──bank import──▶ PAID\n   └────────cancel──────┴──────cancel──┘\n```\n\n1. **DRAFT** → **FINAL**: `InvoiceService.finalise`, from the command `invoice.finalise`. It takes a lock and seals the number.\n2. **FINAL** → **SENT**: `MailJob`, every five minutes.\n3. **SENT** → **PAID**: `BankImport`, when the amounts agree to the cent.\n4. Anything but **PAID** can be cancelled; a cancelled invoice keeps its number.\n\nThe exception that you see in the logs comes from a *repeated* `invoice.finalise`: Kafka delivers at least once, and `finalise` takes a second delivery for an error. It could simply do nothing then.",
                ),
                User("Thanks! Could you write that down in `docs/invoices.md`?"),
                Tool(
                    "edit_file",
                    r#"{"path":"docs/invoices.md","create":true}"#,
                    "created, 24 lines",
                ),
                Agent("Written, with the picture, and linked from the README."),
            ],
        },
        Talk {
            title: "Speed up the nightly stock sync",
            titles: &[
                "Overflow when more is picked than there is",
                "Pool timeouts of the stock sync",
                "Reconcile what was never known",
                "Read movements as a stream",
                "Metrics of the sync",
                "Replay a day of movements",
                "A dry run for the sync",
            ],
            project: "stock-sync",
            branch: "batching",
            tags: &["performance", "rust"],
            state: "working",
            turns: &[
                User(
                    "The sync takes 48 minutes for 1.2 million movements. I would like less than ten. Where does the time go?",
                ),
                Tool(
                    "run",
                    r#"{"command":"perf report --stdio --percent-limit 4 | head -20"}"#,
                    "    41.20%  stock_sync  [.] sqlx_core::pool::inner::PoolInner<DB>::acquire\n    22.91%  stock_sync  [.] stock_sync::store::Store::insert\n    11.07%  stock_sync  [.] serde_json::de::from_slice\n     6.55%  libc.so.6   [.] __memmove_avx_unaligned_erms",
                ),
                Agent(
                    "Two thirds are one insert for each movement, and most of that is waiting for a connection. One statement for 1,000 movements:\n\n```rust\nsqlx::query!(\n    \"INSERT INTO movements (id, sku, shelf, kind, count, at)\n     SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::int[], $6::timestamptz[])\n     ON CONFLICT (id) DO NOTHING\",\n    &ids, &skus, &shelves, &kinds, &counts, &times,\n)\n.execute(&mut *tx)\n.await?;\n```\n\n| movements in a statement | time for 100,000 |\n|--:|--:|\n| 1 | 241 s |\n| 100 | 9.8 s |\n| 1,000 | **4.1 s** |\n| 10,000 | 4.0 s |",
                ),
                User("Take 1,000. What about memory?"),
                Tool(
                    "run",
                    r#"{"command":"cargo test --release -- --ignored million"}"#,
                    "test a_million_movements ... ok (38.7 s, 61 MiB at most)",
                ),
                Agent(
                    "It stays below 64 MiB, and a million movements take 39 seconds. With the time for reading them from the warehouse the whole should be done in **under three minutes**.",
                ),
            ],
        },
        Talk {
            title: "Write the runbook for a failed deploy",
            titles: &[
                "Roll back with one command",
                "Who is woken at night?",
                "Alert rules that nobody reads",
                "A checklist for releases",
                "Post-mortem of the slots",
                "Secrets in old logs",
                "On-call hand-over",
            ],
            project: "checkout-api",
            branch: "docs",
            tags: &["docs", "operations"],
            state: "done",
            turns: &[
                User(
                    "Last week's outage took 50 minutes because nobody knew how to go back. Please write a short runbook: one page, commands that can be copied.",
                ),
                Agent(
                    "# A deploy went wrong\n\n**Go back first, look for the cause afterwards.**\n\n1. Which release runs?\n   ```sh\n   kubectl -n shop get deploy checkout-api -o jsonpath='{.spec.template.spec.containers[0].image}'\n   ```\n2. Back to the one before:\n   ```sh\n   kubectl -n shop rollout undo deploy/checkout-api\n   kubectl -n shop rollout status deploy/checkout-api --timeout=120s\n   ```\n3. Did the release bring a migration? Then **do not** undo it: all of ours can be read by the release before.\n4. Say so in the channel, with the release and the time.\n\n- [x] the commands were tried on staging\n- [ ] the pager's message links here",
                ),
                User("Perfect. Add what to check in the first five minutes."),
                Agent(
                    "Added:\n\n- crash-free sessions of the new release against the one before (*Releases → compare*),\n- new issues of the last 15 minutes,\n- the p95 of `POST /v2/payments`, which should be below **450 ms**,\n- whether the nightly jobs still check in.",
                ),
            ],
        },
        Talk {
            title: "Flaky test: checkout with two tabs",
            titles: &[
                "Tests that depend on the time zone",
                "Run the browser tests in parallel",
                "Fewer mocks in the API tests",
                "A fixture for companies",
                "Why do we need 40 s before the first test?",
                "Test the share of discounts with proptest",
                "Snapshots of mails",
            ],
            project: "shop-web",
            branch: "fix-flaky-checkout",
            tags: &["tests", "flaky"],
            state: "done",
            turns: &[
                User(
                    "`checkout in two tabs` fails about one time in thirty. Can you find out why?",
                ),
                Tool(
                    "run",
                    r#"{"command":"npx vitest run checkout-tabs --retry 0 --repeat 60"}"#,
                    "58 passed, 2 failed\n\nAssertionError: expected 'Your order 88123' to be 'Your order 88124'\n    at src/checkout/tabs.test.tsx:41:28",
                ),
                Agent(
                    "Both tabs ask for an order number at the same moment, and the test takes for granted that the *left* one is first. That is no property of the shop. The test should ask for what matters: **two different numbers**, one for each tab.\n\n```diff\n-  expect(left.heading).toBe('Your order 88123');\n-  expect(right.heading).toBe('Your order 88124');\n+  expect(new Set([left.heading, right.heading]).size).toBe(2);\n```",
                ),
                User("Makes sense."),
                Tool(
                    "run",
                    r#"{"command":"npx vitest run checkout-tabs --retry 0 --repeat 300"}"#,
                    "300 passed",
                ),
                Agent("300 runs without a failure."),
            ],
        },
    ]
}
