/**
 * The client of tandem: a room (`connect`), a player that keeps in step with it (`syncVideo`), and a call among its
 * members (`Call`). Plain ES modules, no build step, no dependencies.
 */
export { connect, Room } from './room.js';
export { syncVideo, VideoSync } from './sync-video.js';
export { Call } from './call.js';
export { TandemError } from './errors.js';
