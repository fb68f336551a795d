// Who is signed in.
import { api, data, type Schemas } from './api';

export const session = $state<{ me: Schemas['Me'] | null }>({ me: null });

export async function loadSession() {
  session.me = await data(api.GET('/auth/me'));
}

/** May whoever is signed in see what concerns the whole installation? */
export function seesInstallation(): boolean {
  const user = session.me?.user;
  return user?.is_system_admin === true || user?.is_auditor === true;
}
