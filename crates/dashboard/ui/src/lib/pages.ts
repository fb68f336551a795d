// Every page: where it is, what it is called, who sees it. Each is loaded when somebody goes there.
import type { Component } from 'svelte';

type Loading = () => Promise<{ default: Component<any> }>;

export interface Page {
  path: RegExp;
  name: string;
  /** Its address, of those that the navigation shows. */
  at?: string;
  group?: 'Agents' | 'Applications' | 'Installation';
  /** For who sees the whole installation. */
  admin?: boolean;
  load: Loading;
}

export const pages: Page[] = [
  { path: /^\/$/, at: '/', name: 'Overview', load: () => import('../pages/Overview.svelte') },
  { path: /^\/llm(?:\/([^/]+))?(?:\/([^/]+))?$/, at: '/llm', name: 'LLM', group: 'Agents', load: () => import('../pages/Llm.svelte') },
  { path: /^\/threads$/, at: '/threads', name: 'Threads', group: 'Agents', load: () => import('../pages/Threads.svelte') },
  { path: /^\/threads\/([^/]+)$/, name: 'Thread', load: () => import('../pages/Thread.svelte') },
  { path: /^\/weavers$/, at: '/weavers', name: 'Weavers', group: 'Agents', load: () => import('../pages/Weavers.svelte') },
  { path: /^\/weavers\/([^/]+)$/, name: 'Weaver', load: () => import('../pages/Weaver.svelte') },
  { path: /^\/crashes$/, at: '/crashes', name: 'Crashes', group: 'Applications', load: () => import('../pages/Issues.svelte') },
  { path: /^\/crashes\/([^/]+)\/([^/]+)$/, name: 'Issue', load: () => import('../pages/Issue.svelte') },
  { path: /^\/crons$/, at: '/crons', name: 'Crons', group: 'Applications', load: () => import('../pages/Crons.svelte') },
  { path: /^\/crons\/([^/]+)$/, name: 'Monitor', load: () => import('../pages/Monitor.svelte') },
  { path: /^\/releases$/, at: '/releases', name: 'Releases', group: 'Applications', load: () => import('../pages/Releases.svelte') },
  { path: /^\/releases\/([^/]+)\/([^/]+)$/, name: 'Release', load: () => import('../pages/Release.svelte') },
  { path: /^\/settings(?:\/([^/]+))?(?:\/([^/]+))?$/, at: '/settings', name: 'Settings', load: () => import('../pages/Settings.svelte') },
  { path: /^\/jobs$/, at: '/jobs', name: 'Jobs', group: 'Installation', admin: true, load: () => import('../pages/Jobs.svelte') },
  { path: /^\/logs$/, at: '/logs', name: 'Logs', group: 'Installation', admin: true, load: () => import('../pages/Logs.svelte') },
  { path: /^\/admin(?:\/([^/]+))?$/, at: '/admin', name: 'Admin', group: 'Installation', admin: true, load: () => import('../pages/Admin.svelte') },
];

export const nowhere: Page = { path: /^/, name: 'Not found', load: () => import('../pages/Nowhere.svelte') };
