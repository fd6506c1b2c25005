/** Types that the page's modules share. The client's own are taken from the client. */

/** @typedef {import('../client/index.js').Room} Room */
/** @typedef {ReturnType<typeof import('../client/index.js').syncVideo>} Sync */
/** @typedef {import('../client/index.js').Call} Call */
/** @typedef {Room['members'][number]} Member */
/** @typedef {import('./fragment.js').Transport} Transport */

/**
 * A visitor's choices for a join.
 * @typedef {object} Wish
 * @property {string} roomId
 * @property {string} name
 * @property {string} pin     empty: none
 * @property {Transport} transport
 * @property {string} owner   from an invitation: hash of the owner's key, empty: none
 */

/**
 * Context of every part of the room view. `signal` aborts when the view is torn down: listeners and timers end with it.
 * @typedef {object} Ctx
 * @property {Room} room
 * @property {Sync} sync
 * @property {Call} call
 * @property {HTMLVideoElement} video
 * @property {AbortSignal} signal
 * @property {Wish} wish
 * @property {(transport: Transport) => void} reconnect
 * @property {() => void} leave
 * @property {(pin: string) => void} pinChanged   keeps the fragment's PIN true
 */

export {};
