// What people call users and keys, which the account knows by their ids.
import { api, data } from '../../lib/api';
import { load } from '../../lib/load.svelte';
import { session } from '../../lib/session.svelte';

export interface Named {
  id: string;
  name: string;
}

/** For a component: loads both, as far as one may see them; of who is gone the id stays. */
export function named() {
  const org = session.me?.org_id ?? '';
  const asked = { params: { path: { org }, query: { limit: 200 } } };
  const members = load(() => data(api.GET('/api/orgs/{org}/members', asked)));
  const keys = load(() => data(api.GET('/api/orgs/{org}/api-keys', asked)));
  const users = $derived(
    members.value?.members.map((one): Named => ({ id: one.user_id, name: one.name || one.email })) ?? [],
  );
  const all = $derived(keys.value?.api_keys.map((one): Named => ({ id: one.id, name: one.name })) ?? []);
  const find = (list: Named[], id: string) => list.find((one) => one.id === id)?.name ?? `${id.slice(0, 13)}…`;
  return {
    get users() {
      return users;
    },
    get keys() {
      return all;
    },
    user: (id: string) => find(users, id),
    key: (id: string) => find(all, id),
  };
}
