// What weavers are, in words.
import type { Schemas } from './api';

export type Weaver = Schemas['WeaverView'];
export type Network = Weaver['network'];

export const NETWORKS: Record<Network, string> = {
  off: 'nothing at all',
  'loom-only': 'this server alone',
  internet: 'this server and public addresses',
  open: 'whatever the cluster lets it',
};

const OVER = ['succeeded', 'failed', 'expired', 'deleted', 'lost'];
export const isOver = (status: string) => OVER.includes(status);

/** What can be done about it, where the reason alone does not say. */
const ADVICE: Record<string, string> = {
  image_pull: 'Look whether the image is spelled right, and whether the cluster may pull it (LOOM_SERVER_WEAVER_IMAGE_PULL_SECRETS).',
  image_missing: 'The image is not on the node, and is not to be pulled.',
  image_name: 'This is no name of an image.',
  clone_failed: 'Look at the repository and the branch; a private one needs a token.',
  out_of_memory: 'Give it more memory, or let it do less at once.',
  unschedulable: 'No node has room for it now. It starts when there is, or ask for less.',
  quota: 'The namespace has a quota that is used up.',
  budget: 'What it could spend on models is spent.',
  idle: 'Nothing happened in it for as long as it was given.',
  node_lost: 'The machine that it ran on is not heard of any more.',
  pod_gone: 'Somebody took its pod away, and not this server.',
  kubernetes_unavailable: 'The cluster cannot be reached; it goes on by itself.',
};

/** Why it is as it is, and what can be done. */
export function why(weaver: Weaver): { reason: string; advice?: string } | null {
  const advice = weaver.reason_code ? ADVICE[weaver.reason_code] : undefined;
  if (weaver.reason) return { reason: weaver.reason, advice };
  if (weaver.status === 'pending') return { reason: 'it is on its way' };
  if (weaver.status === 'terminating') return { reason: 'its pod is being taken down' };
  return null;
}

/** The image without where it is from. */
export const short = (image: string) => image.split('/').slice(-2).join('/');

const PHASES: Record<string, string> = {
  queued: 'asked for',
  scheduled: 'has a node',
  pulling: 'the image is being fetched',
  started: 'its process has started',
  ready: 'ready',
  exit: 'its process has ended',
  ended: 'nothing of it is left in the cluster',
  warning: 'warning',
};
export const phase = (name: string) => PHASES[name] ?? name.replaceAll('_', ' ');
