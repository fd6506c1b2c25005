import { connect } from '../../client/index.js';
import { FakeEnv } from './fake-env.js';
import { FakeServer } from './fake-server.js';
import { PageLife } from './page-life.js';

/** A room on a fake connection, and all events of its listeners. `setup` gets the server before the client does. */
export function openRoom({ env = new FakeEnv(), server = new FakeServer(env), setup, address = 'https://tandem.test:4433', ...options } = {}) {
  setup?.(server, env);
  const life = new PageLife(env, server);
  const room = connect({
    server: address, roomId: 'friday', userId: 'ann', transport: 'websocket', storage: null, env: life.env, ...options,
  });
  const heard = [];
  for (const type of ['state', 'change', 'playback', 'chat', 'custom', 'error', 'closed', 'tick', 'digest', 'signal', 'ended']) {
    room.addEventListener(type, ({ detail }) => heard.push({ type, detail }));
  }
  return { env, server, room, life, heard, heardOf: (type) => heard.filter((event) => event.type === type).map(({ detail }) => detail) };
}

/** The same, joined, its clock synced. */
export async function joinedRoom(options = {}) {
  const harness = openRoom(options);
  await harness.room.ready;
  await harness.env.advance(500);
  return harness;
}

/** The outcome of a promise, without waiting: fails when it is still open. */
export async function outcome(env, promise) {
  let result = { status: 'pending' };
  promise.then(
    (value) => (result = { status: 'fulfilled', value }),
    (error) => (result = { status: 'rejected', code: error.code, error }),
  );
  await env.settle();
  return result;
}
