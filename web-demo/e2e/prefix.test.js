/** Under a path of a proxy (a real nginx) the page, the client and the server's own addresses keep the path. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Nginx } from './support/nginx.js';
import { Server } from './support/server.js';

const browser = new Browser();

/** nginx and the server are stopped before the pages are closed. */
const GONE = [/502|ERR_CONNECTION|ERR_QUIC|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE/, /WebSocket connection to .* failed/, /Failed to establish a connection to/];

/** The recipe of docs/DEPLOYMENT.md, on ports of the test's own. */
async function documented({ port, to }) {
  const page = await readFile(new URL('../../docs/DEPLOYMENT.md', import.meta.url), 'utf8');
  const recipe = /```nginx\n([\s\S]*?)```/.exec(page)?.[1] ?? '';
  assert.match(recipe, /listen 80;/);
  assert.match(recipe, /127\.0\.0\.1:4001/);
  return recipe.replace('listen 80;', `listen 127.0.0.1:${port};`).replaceAll('127.0.0.1:4001', `127.0.0.1:${to}`);
}

const UPGRADE = "map $http_upgrade $cu { default upgrade; '' close; }";
const HEADERS = 'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $cu;';

/** Without `Host $http_host`, as in most recipes: the server hears its own address as Host. */
const short = async ({ port, to }) =>
  `${UPGRADE} server { listen 127.0.0.1:${port}; location /watch/ { proxy_pass http://127.0.0.1:${to}/; ${HEADERS} } }`;

/** The proxy passes the prefix on, and BASE_PATH strips it. */
const passedOn = async ({ port, to }) =>
  `${UPGRADE} server { listen 127.0.0.1:${port}; location /watch { proxy_pass http://127.0.0.1:${to}; ${HEADERS} proxy_set_header Host $http_host; } }`;

for (const { name, recipe, env, absolute } of [
  { name: 'the recipe of DEPLOYMENT.md', recipe: documented, env: { TRUSTED_PROXIES: '1' }, absolute: true },
  { name: 'nginx’s usual short recipe', recipe: short, env: {}, absolute: false },
  { name: 'a proxy that passes the prefix on, with BASE_PATH', recipe: passedOn, env: { BASE_PATH: '/watch' }, absolute: true },
]) {
  describe(name, () => {
    test('leads to the page and into a room over both transports, and links keep the path', async (t) => {
      const server = await Server.for(t, env);
      const nginx = await Nginx.for(t, (port) => recipe({ port, to: server.port }));
      const origin = `http://localhost:${nginx.port}/watch`;
      const room = roomName('prefix');
      const ann = await browser.join(t, { server, origin, room, name: 'Ann', transport: 'websocket', allowed: GONE });
      const bob = await browser.join(t, { server, origin, room, name: 'Bob', transport: 'webtransport', allowed: GONE });
      assert.deepEqual([(await ann.room()).transport, (await bob.room()).transport], ['websocket', 'webtransport']);
      await ann.until('both being there', () => window.tandem.room.members.length === 2);

      const { shortId, shortUrl } = await (await fetch(`${origin}/api/short-id/${room}`)).json();
      if (absolute) assert.equal(shortUrl, `${origin}/room/${shortId}`);
      for (const path of [`${origin}/room/${shortId}`, `${origin}/room/${shortId}/4711`]) {
        const { status, headers } = await fetch(path, { redirect: 'manual' });
        assert.equal(status, 302);
        assert.equal(new URL(headers.get('location') ?? '', path).href, `${origin}/#room=${room}`);
      }
      assert.equal((await fetch(origin)).url, `${origin}/`, 'the address without its slash leads to the page');
      const missing = await (await fetch(`${origin}/no/such/page`, { headers: { accept: 'text/html' } })).text();
      const style = /href="([^"]+style\.css)"/.exec(missing)?.[1] ?? '';
      assert.equal(new URL(style, `${origin}/no/such/page`).href, `${origin}/style.css`);
    });
  });
}

test('the recipe of DEPLOYMENT.md shows no diagnostics', async (t) => {
  const server = await Server.for(t, { TRUSTED_PROXIES: '1' });
  const nginx = await Nginx.for(t, (port) => documented({ port, to: server.port }));
  for (const path of ['metrics', 'status']) {
    assert.equal((await fetch(`http://localhost:${nginx.port}/watch/${path}`)).status, 404, path);
  }
  assert.equal((await fetch(`http://localhost:${nginx.port}/watch/health`)).status, 200);
});
