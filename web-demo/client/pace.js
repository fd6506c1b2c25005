/** How often a player is compared with the room, ms. */
export const LOOK_MS = 100;
export const LOOK_PAUSED_MS = 250;
/** Browsers slow the timers of a hidden page to this. */
export const LOOK_HIDDEN_MS = 1000;
/** Until there are enough readings to trust. */
export const LOOK_MEASURING_MS = 25;
