// What people call users and keys, which the account knows by their ids.
import { api, data } from '../../lib/api';
import { load } from '../../lib/load.svelte';
import { loadPeople, nameOf, people } from '../../lib/people.svelte';
import { session } from '../../lib/session.svelte';

export interface Named {
  id: string;
  name: string;
}

/** For a component: loads both, as far as one may see them; of who is gone the id stays. */
export function named() {
  void loadPeople();
  const params = { path: { org: session.me?.org_id ?? '' }, query: { limit: 200 } };
  const keys = load(() => data(api.GET('/api/orgs/{org}/api-keys', { params })));
  const users = $derived(people.all.map((one): Named => ({ id: one.user_id, name: one.name || one.email })));
  const all = $derived(keys.value?.api_keys.map((one): Named => ({ id: one.id, name: one.name })) ?? []);
  return {
    get users() {
      return users;
    },
    get keys() {
      return all;
    },
    user: (id: string) => nameOf(id),
    key: (id: string) => all.find((one) => one.id === id)?.name ?? `${id.slice(0, 13)}…`,
  };
}
