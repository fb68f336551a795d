import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// `npm run dev` shows the page as it is being written, with the data of a server that runs.
const server = process.env.LOOM_SERVER_URL ?? 'http://127.0.0.1:8080';
const theirs = ['/api', '/auth', '/docs', '/health', '/account', '/metrics', '/v1'];

export default defineConfig({
  plugins: [svelte()],
  build: { assetsInlineLimit: 0, target: 'es2022', modulePreload: { polyfill: false } },
  server: { proxy: Object.fromEntries(theirs.map((path) => [path, { target: server }])) },
});
