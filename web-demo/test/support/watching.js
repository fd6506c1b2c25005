/** A joined room with a film loaded, and a player that follows it. */
import { syncVideo } from '../../client/index.js';
import { FakeEnv } from './fake-env.js';
import { FakeServer } from './fake-server.js';
import { FakeVideo } from './fake-video.js';
import { joinedRoom } from './room-harness.js';

export const URL_OF_FILM = 'https://example.org/film.webm';

/** A joined room with a film, and a player that follows it. The server acknowledges and commits every command. */
export async function watching({ seed = 1, video: videoOptions, host = true, transport = 'websocket', prepare = () => {}, before = () => {}, loads = true, ...syncOptions } = {}) {
  const env = new FakeEnv({ seed });
  const server = new FakeServer(env);
  server.room.url = URL_OF_FILM;
  server.room.users.push({ userId: 'bob', username: 'Bob', slot: 2, connected: true, protocol: 3, transport: 'websocket', joinedAt: 2 });
  if (!host) server.room.hostUserId = 'bob';
  server.onRequest = (line, message) => obey(server, line, message);
  prepare(server);
  const harness = await joinedRoom({ env, server, transport });
  const video = new FakeVideo(env, videoOptions);
  before(video);
  const sync = syncVideo(harness.room, video, syncOptions);
  const events = [];
  for (const type of ['denied', 'autoplay-blocked', 'media-error', 'mode', 'player', 'limit']) sync.on(type, (detail) => events.push({ type, detail }));
  if (loads) await env.until('the film is loaded', () => video.readyState === 4 && sync.mode !== 'waiting' && !video.seeking);
  return {
    ...harness, video, sync, events,
    drift: () => (video.truePosition() - harness.room.positionNow()) * 1000,
    commands: () => server.received.filter(({ type }) => ['PLAY_PAUSE', 'SEEK', 'SET_RATE', 'URL_CHANGE'].includes(type)),
    eventsOf: (type) => events.filter((event) => event.type === type).map(({ detail }) => detail),
  };
}

const LEAD = 100;

function obey(server, line, message) {
  const at = server.roomTime() + LEAD;
  const { playback } = server.room;
  const events = {
    PLAY_PAUSE: () => ({
      type: 'PLAY_PAUSE', userId: 'ann', control: message.control,
      playback: { position: message.currentTime, rate: playback.rate, playing: message.control === 'play', at },
    }),
    SEEK: () => ({ type: 'SEEK_PAUSE', userId: 'ann', gateId: null, playback: { position: message.currentTime, rate: 1, playing: message.isPlaying ?? playback.playing, at } }),
    SET_RATE: () => ({ type: 'RATE_CHANGED', userId: 'ann', rate: message.rate, playback: { ...playback, rate: message.rate } }),
  };
  if (!events[message.type]) return;
  // The acknowledgement first: the client must not take the room for unchanged in between.
  line.deliver({ type: 'ACK', ref: message.ref, epoch: server.room.epoch, seq: server.room.seq + 1, timestamp: 1 });
  server.env.setTimeout(() => server.commit(events[message.type]()), 3);
}

export function play(server, { position = 0, lead = 200, rate = 1 } = {}) {
  const at = server.roomTime() + lead;
  server.commit({ type: 'PLAY_PAUSE', userId: 'bob', control: 'play', playback: { position, rate, playing: true, at } });
  return at;
}

export function pause(server, position) {
  server.commit({ type: 'PLAY_PAUSE', userId: 'bob', control: 'pause', playback: { position, rate: 1, playing: false, at: server.roomTime() } });
}

/** A person touches the player's own controls, and the element answers. */
export function byHand(env, video, act) {
  env.input('pointerdown', { target: video });
  act();
  env.input('pointerup', { target: video });
}
