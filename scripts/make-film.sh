#!/usr/bin/env bash
# Makes web-demo/media/film.webm: the film that the demo page plays and that the benches measure with.
#
#   scripts/make-film.sh [output.webm]
#
# Nothing in it comes from anywhere else: ffmpeg draws every frame from these expressions, so the film needs no licence
# and the same ffmpeg makes the same bytes. It shows drift rather than hides it:
#   * timecode HH:MM:SS.mmm and a frame counter, large enough to compare two phones side by side;
#   * a hand that turns once a second over 25 marks (one a frame), a marker that crosses its lane in one second, and a bar
#     that sweeps the width once a second;
#   * a beep and a flash that start on the same frame, each second; higher and longer each tenth. The flash is a frame
#     around the picture: a flash of all of it would spend the bits of the next second, and is hard on some people;
#   * the bottom 20 rows: 16 blocks of 40 px, the frame number in binary, most significant bit left, white = 1.
#     web-demo/app/framecode.js reads them back from a canvas.
#
# 25 fps and not 30: a frame is exactly 40 ms, so WebM's millisecond timestamps are exact. A key frame each second keeps
# seeks quick; the cues stand in front, so that the first seek needs no round trip to the end of the file.
set -euo pipefail

cd "$(dirname "$0")/.."
out=${1:-web-demo/media/film.webm}
seconds=${FILM_SECONDS:-180}
fonts=${FONT_DIR:-/usr/share/fonts/truetype/dejavu}
mono=$fonts/DejaVuSansMono-Bold.ttf
sans=$fonts/DejaVuSans.ttf
for f in "$mono" "$sans"; do
  [ -r "$f" ] || { echo "make-film: $f is missing (Debian: apt install fonts-dejavu-core)" >&2; exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# --- the graph -----------------------------------------------------------------------------------
# Still pictures (background, dial, hand, ball) are computed once and looped: geq evaluates an expression per pixel, and
# 4,500 frames of that would take an hour.
# setpts counts frames in the time base of 1/25; N/25/TB would be the same but for rounding, which lost every other frame
# of some seconds.
still='trim=end_frame=1,loop=loop=-1:size=1:start=0,setpts=N'

# The 16 bits. drawbox can't move, but it can be switched on per frame.
bits=""
for i in $(seq 0 15); do
  bits+=",drawbox=x=$((i * 40)):y=340:w=40:h=20:c=white:t=fill:enable='mod(floor(n/$((1 << (15 - i))))\,2)'"
done

# A scene is 10 s: its own hue (137.5° apart, so neighbours never look alike) and its own name.
scenes=(harbour orchard kiln glacier meadow foundry lagoon quarry vineyard tundra saltworks canyon cedar delta plateau reef heath summit)
names=""
for i in "${!scenes[@]}"; do
  names+=",drawtext=fontfile=$sans:fontsize=20:fontcolor=white@0.85:x=32:y=28:text='$(printf '%02d' $((i + 1)))  ${scenes[$i]}':enable='between(t\,$((i * 10))\,$((i * 10 + 9)).99)'"
done

# The 312 samples at the end of the graph: the Opus encoder dates its first packet 6.5 ms early, and the muxer would move the
# picture off its whole frames to make room. That delay stands in the track's header already, so dated at zero the sound
# is right.
cat > "$work/graph" <<GRAPH
color=c=black:s=640x360:r=25,format=rgb24,
  geq=r='44+30*Y/H':g='58-22*Y/H':b='98-36*Y/H',
  $still,format=yuv444p,hue=h='137.5*floor((t+0.001)/10)':s=1.1,format=yuv420p[background];

color=c=black:s=132x132:r=25,format=rgba,
  geq=r=255:g=255:b=255:a='
    if(between(hypot(X-65.5\,Y-65.5)\,62\,64.5)\,200\,
    if(between(hypot(X-65.5\,Y-65.5)\,50\,58)*lt(abs(mod(atan2(X-65.5\,65.5-Y)*25/(2*PI)+25.5\,1)-0.5)*hypot(X-65.5\,Y-65.5)\,4.2)\,210\,
    if(lt(hypot(X-65.5\,Y-65.5)\,62)\,18\,0)))',
  ${still}[dial];

color=c=black:s=132x132:r=25,format=rgba,
  geq=r=255:g=214:b=92:a='255*max(lt(abs(X-65.5)\,2.4)*between(Y\,12\,66)\,lt(hypot(X-65.5\,Y-65.5)\,6))',
  $still,rotate=a='2*PI*(n/25)':c=none[hand];

color=c=black:s=32x32:r=25,format=rgba,
  geq=r=255:g=255:b=255:a='255*clip(15.5-hypot(X-15.5\,Y-15.5)\,0\,1)',${still}[ball];

color=c=0xffd65c:s=640x8:r=25[sweep];

[background]drawbox=x=0:y=318:w=640:h=42:c=black:t=fill,
  drawbox=x=216:y=251:w=392:h=2:c=white@0.35:t=fill,
  drawbox=x=231:y=236:w=2:h=32:c=white@0.6:t=fill,drawbox=x=591:y=236:w=2:h=32:c=white@0.6:t=fill[lane];
[lane][dial]overlay=x=48:y=168[a];
[a][hand]overlay=x=48:y=168[b];
[b][ball]overlay=x='216+360*abs(mod(round(t*25)/25+1\,2)-1)':y=236:eval=frame[c];
[c][sweep]overlay=x='-640+640*(mod(round(t*25)\,25)+1)/25':y=324:eval=frame,
  drawtext=fontfile=$mono:fontsize=70:fontcolor=white:x=(w-tw)/2:y=80:text='%{pts\:hms}',
  drawtext=fontfile=$mono:fontsize=20:fontcolor=white@0.85:x=w-tw-32:y=28:text='frame %{eif\:n\:d\:4}',
  drawtext=fontfile=$sans:fontsize=14:fontcolor=white@0.7:x=216:y=190:text='tandem test film, 25 frames a second'
  $names,
  drawbox=x=216:y=206:w=392:h=10:c=white:t=fill:enable='not(mod(n\,25))',
  drawbox=x=0:y=0:w=640:h=318:c=white:t=14:enable='not(mod(n\,25))',
  drawbox=x=0:y=0:w=640:h=318:c=0xffd65c:t=14:enable='lt(mod(n\,250)\,3)'
  $bits,
  trim=duration=$seconds,format=yuv420p[video];

aevalsrc=exprs='if(lt(mod(t\,10)\,1)
    \,0.5*sin(2*PI*1320*t)*between(mod(t\,1)\,0\,0.18)*min(1\,400*mod(t\,1))*min(1\,100*(0.18-mod(t\,1)))
    \,0.4*sin(2*PI*880*t)*between(mod(t\,1)\,0\,0.08)*min(1\,400*mod(t\,1))*min(1\,100*(0.08-mod(t\,1))))':s=48000:d=$seconds,asetnsamples=n=960:p=0,asetpts=PTS+312[audio]
GRAPH

# --- the encode ----------------------------------------------------------------------------------
# One thread and bitexact flags: the same input gives the same file. No alternate reference frames: each packet is one
# visible frame, so a seek never decodes a hidden one.
mkdir -p "$(dirname "$out")"
nice ffmpeg -hide_banner -loglevel error -nostdin -y \
  -filter_complex_threads 1 -filter_complex_script "$work/graph" -map '[video]' -map '[audio]' \
  -c:v libvpx-vp9 -threads 1 -b:v 0 -crf 43 -deadline good -cpu-used 1 -auto-alt-ref 0 -lag-in-frames 0 \
  -g 25 -keyint_min 25 -pix_fmt yuv420p -colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv \
  -c:a libopus -b:a 24k -ac 1 -application audio \
  -map_metadata -1 -fflags +bitexact -flags:v +bitexact -flags:a +bitexact \
  -cues_to_front 1 -f webm "$work/film.webm"

size=$(stat -c %s "$work/film.webm")
limit=4000000
[ "$size" -lt "$limit" ] || { echo "make-film: $size bytes, the limit is $limit" >&2; exit 1; }
mv "$work/film.webm" "$out"
echo "$out: $size bytes, sha256 $(sha256sum "$out" | cut -d' ' -f1)"
