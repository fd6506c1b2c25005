/**
 * Reads the frame number that the test film carries: 16 blocks along its bottom edge, white = 1, the most significant
 * bit left (scripts/make-film.sh draws them). It tells what is really on the screen, which `currentTime` does not.
 */
export const FRAMES_PER_SECOND = 25;
const BITS = 16;
/** The strip is 20 of 360 rows high; its middle row is safest. */
const ROW = 350 / 360;

/** @type {CanvasRenderingContext2D | null} */
let scratch = null;

/**
 * @param {CanvasImageSource} picture a video of the test film, or a picture of one
 * @returns {number | null} null when it can't be read: another film, or one whose pixels the browser keeps to itself
 */
export function readFrame(picture) {
  scratch ??= Object.assign(document.createElement('canvas'), { width: BITS * 4, height: 1 }).getContext('2d', { willReadFrequently: true });
  if (!scratch) return null;
  const [width, height] = sizeOf(picture);
  if (!width || !height) return null;
  try {
    scratch.drawImage(picture, 0, Math.floor(height * ROW), width, 1, 0, 0, BITS * 4, 1);
    const { data } = scratch.getImageData(0, 0, BITS * 4, 1);
    let value = 0;
    for (let bit = 0; bit < BITS; bit++) {
      // The second and third of four samples: away from the neighbours.
      const level = (data[(bit * 4 + 1) * 4 + 1] + data[(bit * 4 + 2) * 4 + 1]) / 2;
      if (level > 70 && level < 180) return null;
      value = value * 2 + (level >= 180 ? 1 : 0);
    }
    return value;
  } catch {
    // A film of another origin taints the canvas.
    return null;
  }
}

/** @param {CanvasImageSource} picture @returns {[number, number]} */
function sizeOf(picture) {
  if (picture instanceof HTMLVideoElement) return [picture.videoWidth, picture.videoHeight];
  const { width, height } = /** @type {{width: number, height: number}} */ (picture);
  return [Number(width), Number(height)];
}
