/** A page of another site that embeds the client with a plain `<video controls>`, and film servers with faults. */
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const FILM = readFileSync(fileURLToPath(new URL('../../media/film.webm', import.meta.url)));

const page = (server, { room, name, options, connection }) => `<!doctype html><meta charset="utf-8"><title>${name}</title>
<video id="video" controls width="640" height="360"></video>
<script type="module">
  import { connect, syncVideo } from '${server}/client/index.js';
  const room = connect({ server: '${server}', roomId: '${room}', username: '${name}', storage: null, transport: 'websocket', ...${JSON.stringify(connection)} });
  const said = [];
  room.addEventListener('message', ({ detail: { direction, message, compact } }) => compact || said.push({ direction, ...message }));
  await room.ready;
  const video = document.querySelector('#video');
  const sync = syncVideo(room, video, ${JSON.stringify(options ?? {})});
  const limits = [];
  sync.on('limit', ({ reason }) => limits.push(reason));
  window.tandem = { room, sync, video, said, limits };
</script>`;

/** How a film is served. @type {Record<string, (request: any, response: any) => void>} */
const FILMS = {
  /** Without a fault. */
  '/film.webm': (request, response) => serveRange(FILM, request, response),
  /** Without byte ranges: a seek is a seek to 0. */
  '/whole.webm': (_request, response) => response.writeHead(200, { ...HEADERS, 'content-length': FILM.length }).end(FILM),
  /** Answers requests for the beginning, and hangs on later parts. */
  '/hangs.webm': (request, response) => {
    if (startOf(request) === 0) serveRange(FILM, request, response, 400_000);
  },
  /** Damaged in the middle. */
  '/damaged.webm': (request, response) => {
    const damaged = Buffer.from(FILM);
    for (let i = Math.floor(damaged.length * 0.12); i < damaged.length * 0.9; i++) damaged[i] = (i * 2654435761) >>> 13;
    serveRange(damaged, request, response);
  },
};

const HEADERS = { 'content-type': 'video/webm', 'cache-control': 'no-store' };

function startOf(request) {
  return Number(/bytes=(\d+)/.exec(request.headers.range ?? '')?.[1] ?? 0);
}

function serveRange(film, request, response, most = film.length) {
  const start = startOf(request);
  response.writeHead(206, { ...HEADERS, 'accept-ranges': 'bytes', 'content-range': `bytes ${start}-${film.length - 1}/${film.length}`, 'content-length': film.length - start });
  // Beyond `most` the connection stays open without data.
  if (start + most < film.length) response.write(film.subarray(start, start + most));
  else response.end(film.subarray(start));
}

/** @param {string|null} text */
const json = (text) => JSON.parse(text ?? '{}');

export class Embedding {
  #listener;
  /** Whether `/flaky.webm` exists. */
  works = true;

  /** @param {import('node:test').TestContext} t @param {string} server where tandem is */
  static async for(t, server) {
    const embedding = new Embedding();
    embedding.#listener = createServer((request, response) => embedding.#serve(server, request, response));
    await new Promise((resolve) => embedding.#listener.listen(0, '127.0.0.1', () => resolve(undefined)));
    t.after(() => {
      embedding.#listener.closeAllConnections();
      return new Promise((resolve) => embedding.#listener.close(resolve));
    });
    return embedding;
  }

  get origin() {
    return `http://127.0.0.1:${/** @type {import('node:net').AddressInfo} */ (this.#listener.address()).port}`;
  }

  #serve(server, request, response) {
    const { pathname, searchParams } = new URL(request.url, 'http://here');
    if (pathname === '/flaky.webm') return this.works ? serveRange(FILM, request, response) : response.writeHead(503).end();
    if (FILMS[pathname]) return FILMS[pathname](request, response);
    if (pathname !== '/') return response.writeHead(404).end();
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
    response.end(page(server, { room: searchParams.get('room'), name: searchParams.get('name'), options: json(searchParams.get('options')), connection: json(searchParams.get('connection')) }));
  }

  /** A person at that page, in the room. `options` are syncVideo's, `connection` are connect's. */
  async join(t, browser, { room, name, options = {}, connection = {}, allowed = [] }) {
    const tab = await browser.person(t, { name, allowed: [/favicon/, ...allowed] });
    await tab.page.goto(`${this.origin}/?${new URLSearchParams({ room, name, options: JSON.stringify(options), connection: JSON.stringify(connection) })}`);
    await tab.until('being in the room', () => window.tandem?.room.state === 'joined');
    return tab;
  }
}
