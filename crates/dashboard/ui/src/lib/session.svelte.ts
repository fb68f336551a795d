// Who is signed in, and for which of their organisations.
import { api, chooseOrganisation, data, organisation, Problem, type Schemas } from './api';
import { go, route, withQuery } from './route.svelte';

export const session = $state<{ me: Schemas['Me'] | null }>({ me: null });

export async function loadSession() {
  // A link may say which organisation it is of, by its id or its short name.
  const linked = route.query.get('org');
  if (linked) organisation.id = linked;
  try {
    session.me = await data(api.GET('/auth/me'));
  } catch (error) {
    // The one that was chosen on this browser may be gone, or another person's.
    if (!(error instanceof Problem) || !organisation.id || error.status === 401 || error.status === 0) throw error;
    chooseOrganisation(null);
    session.me = await data(api.GET('/auth/me'));
  }
  if (linked) {
    chooseOrganisation(session.me.org_id ?? null);
    go(withQuery({ org: null }), { replace: true });
  }
}

/** May whoever is signed in see what concerns the whole installation? */
export function seesInstallation(): boolean {
  const user = session.me?.user;
  return user?.is_system_admin === true || user?.is_auditor === true;
}

/** May they change what belongs to the organisation? */
export function administers(): boolean {
  return session.me?.role === 'owner' || session.me?.role === 'admin';
}

/** The organisation that is looked at, as addresses of the API name it. */
export function org(): string {
  return session.me?.org_id ?? '';
}

export function isOwner(): boolean {
  return session.me?.role === 'owner';
}
