// An address of every page, with what the demo data lets it show. A new page gets a line here.
let known = null;

export async function addresses(server) {
  if (known) return known;
  const [{ issues }, { threads }, { weavers }, { requests: [request] }] = await Promise.all([
    server.ask('GET', '/api/crash/projects/shop-web/issues?limit=50'),
    server.ask('GET', '/api/threads?limit=20'),
    server.ask('GET', '/api/weavers?limit=20'),
    server.ask('GET', '/api/llm/requests?limit=1'),
  ]);
  const issue = issues.find((one) => one.title.includes('price')) ?? issues[0];
  const thread = threads.find((one) => one.message_count > 6) ?? threads[0];
  const weaver = weavers.find((one) => one.status === 'running') ?? weavers[0];
  known = [
    { name: 'overview', path: '/' },
    { name: 'crashes', path: '/crashes', shows: ['SHOP-WEB-'] },
    { name: 'crashes-filtered', path: '/crashes?query=is%3Aresolved' },
    { name: 'issue', path: `/crashes/shop-web/${issue.short_id}`, shows: ['selectOffer'] },
    { name: 'crons', path: '/crons', shows: ['nightly-backup'] },
    { name: 'monitor', path: '/crons/verify-backup', shows: ['verify-backup'] },
    { name: 'jobs', path: '/jobs', shows: ['Usage roll-up'] },
    { name: 'logs', path: '/logs' },
    { name: 'llm', path: '/llm?span=30d', shows: ['claude-sonnet-4-5'] },
    { name: 'llm-users', path: '/llm?span=30d&by=user&measure=latency', shows: ['Ada Okafor'] },
    { name: 'llm-requests', path: '/llm/requests?outcome=failed', shows: ['failed'] },
    { name: 'llm-request', path: `/llm/requests/${request.id}`, shows: ['What it was'] },
    { name: 'llm-playground', path: '/llm/playground' },
    { name: 'llm-models', path: '/llm/models', shows: ['loom-demo'] },
    { name: 'llm-limits', path: '/llm/limits' },
    { name: 'llm-providers', path: '/llm/providers', shows: ['openai'] },
    { name: 'llm-settings', path: '/llm/settings', shows: ['Capture'] },
    { name: 'threads', path: '/threads', shows: [thread.title] },
    { name: 'threads-search', path: '/threads?q=idempotency', shows: ['Said by'] },
    { name: 'thread', path: `/threads/${thread.id}`, shows: [thread.title, 'Assistant'] },
    { name: 'weavers', path: '/weavers', shows: ['agents/'] },
    { name: 'weaver', path: `/weavers/${weaver.id}`, shows: ['its process has started'] },
    { name: 'weaver-log', path: `/weavers/${weaver.id}?tab=log` },
    { name: 'releases', path: '/releases?project=shop-web&span=30d', shows: ['shop-web@2.14.1'] },
    { name: 'release', path: '/releases/shop-web/shop-web%402.14.1', shows: ['Threads that made it'] },
    { name: 'releases-compared', path: '/releases/shop-web/shop-web%402.15.0?with=shop-web%402.14.1', shows: ['Between them'] },
    ...['', '/sessions', '/keys', '/organisation', '/members', '/projects', '/projects/shop-web', '/crons', '/repositories',
      '/privacy', '/audit'].map((part) => under('/settings', part)),
    ...['', '/users', '/audit', '/deliveries', '/webhooks', '/replicas', '/maintenance'].map((part) => under('/admin', part)),
    { name: 'nowhere', path: '/nowhere-at-all' },
  ];
  return known;
}

/** A part of a page. */
function under(page, part) {
  return { name: (page + part).slice(1).replaceAll('/', '-'), path: page + part };
}
