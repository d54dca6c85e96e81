// Sound files to samples. WAV files are read here, so that no browser resamples them; others are decoded by the browser.

export class SoundError extends Error {
  constructor(key, values = {}) { super(key); this.key = key; this.values = values; }
}

const RATES_HZ = [500, 400000];
const MAX_SECONDS = 600;      // a page is no archive

// File or Blob -> {samples: Float32Array, rateHz}
export async function read(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (bytes.length === 0) throw new SoundError("empty");
  const found = tag(bytes, 0) === "RIFF" && tag(bytes, 8) === "WAVE" ? wav(bytes) : await decoded(bytes);
  return usable(found);
}

// The same samples, where a page takes so many at such a rate.
export function usable(found) {
  if (found.samples.length === 0) throw new SoundError("empty");
  if (found.rateHz < RATES_HZ[0] || found.rateHz > RATES_HZ[1]) throw new SoundError("rate", {rate: found.rateHz});
  if (found.samples.length > MAX_SECONDS * found.rateHz) throw new SoundError("long", {seconds: MAX_SECONDS});
  return found;
}

const CODED = {2: "ADPCM", 17: "ADPCM", 49: "GSM 6.10", 80: "MPEG", 85: "MP3"};

// Bytes of a RIFF file: PCM of 8 to 32 bits, floats of 32 or 64 bits, or telephone samples (ITU-T G.711).
export function wav(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let format = null;
  for (let at = 12; at + 8 <= bytes.length;) {
    const name = tag(bytes, at), size = view.getUint32(at + 4, true), start = at + 8;
    if (name === "fmt " && start + 16 <= bytes.length) {
      let code = view.getUint16(start, true);
      if (code === 0xfffe && size >= 26) code = view.getUint16(start + 24, true);
      format = {code, channels: view.getUint16(start + 2, true), rateHz: view.getUint32(start + 4, true),
                bits: view.getUint16(start + 14, true)};
    } else if (name === "data" && format) {
      const open = size === 0 || size >= 0x7fff0000;       // a program that wrote while it recorded
      if (!open && start + size > bytes.length) throw new SoundError("truncated");
      const end = open ? bytes.length : start + size;
      if (!open) chunksBehind(bytes, view, end + (size & 1));
      return {samples: mono(channelsOf(view, start, end, format), format.rateHz), rateHz: format.rateHz};
    }
    at = start + size + (size & 1);
  }
  throw new SoundError("unreadable");
}

// Behind the samples there may be notes of the program that wrote them, but no samples.
function chunksBehind(bytes, view, from) {
  let at = from;
  while (at + 8 <= bytes.length) {
    if (!/^[\x20-\x7e]{4}$/.test(tag(bytes, at))) throw new SoundError("longer");
    at += 8 + view.getUint32(at + 4, true);
    at += at & 1;
  }
  if (at > bytes.length + 1 || bytes.length - at > 7) throw new SoundError("longer");
}

function channelsOf(view, start, end, {code, channels, bits}) {
  const width = bits >> 3;
  const get = code === 1 && bits === 8 ? (at) => (view.getUint8(at) - 128) / 128
    : code === 1 && bits === 16 ? (at) => view.getInt16(at, true) / 32768
    : code === 1 && bits === 24 ? (at) => ((view.getUint8(at) | (view.getUint8(at + 1) << 8) | (view.getInt8(at + 2) << 16)) / 8388608)
    : code === 1 && bits === 32 ? (at) => deep(view.getInt32(at, true) / 2147483648)
    : code === 3 && bits === 32 ? (at) => view.getFloat32(at, true)
    : code === 3 && bits === 64 ? (at) => view.getFloat64(at, true)
    : code === 6 && bits === 8 ? (at) => aLaw(view.getUint8(at)) / 32768
    : code === 7 && bits === 8 ? (at) => muLaw(view.getUint8(at)) / 32768 : null;
  if (CODED[code]) throw new SoundError("coded", {kind: CODED[code]});
  if (!get || channels < 1 || channels > 64) throw new SoundError("unreadable");
  const count = Math.floor((end - start) / (width * channels));
  const found = Array.from({length: channels}, () => new Float64Array(count));
  for (let i = 0, at = start; i < count; i++) for (let c = 0; c < channels; c++, at += width) found[c][i] = get(at);
  return code === 3 ? found.map(floats) : found;
}

// One byte of A-law or mu-law as a sample of 16 bits: sign, three bits of exponent, four of mantissa.
function aLaw(byte) {
  const bits = byte ^ 0x55, exponent = (bits >> 4) & 7, mantissa = (bits & 15) << 4;
  const size = exponent === 0 ? mantissa + 8 : (mantissa + 0x108) << (exponent - 1);
  return bits & 0x80 ? size : -size;
}

function muLaw(byte) {
  const bits = ~byte & 0xff, size = ((((bits & 15) << 3) + 0x84) << ((bits >> 4) & 7)) - 0x84;
  return bits & 0x80 ? -size : size;
}

const deep = (value) => Math.max(-1, Math.min(1 - 2 ** -23, Math.round(value * 2 ** 23) / 2 ** 23));

// Floats as the pipeline reads them: 24 bits; above full scale they are divided by a power of two.
function floats(values) {
  let peak = 0;
  for (const value of values) {
    if (!Number.isFinite(value)) throw new SoundError("nan");
    peak = Math.max(peak, Math.abs(value));
  }
  const sizes = Float64Array.from(values, Math.abs).sort(), others = sizes[Math.max(0, sizes.length - 1 - Math.max(1, Math.floor(sizes.length / 20)))];
  if (peak > 2 ** 31 || (peak > 1 && others < peak / 4096)) throw new SoundError("outlier");
  const scale = peak > 1 ? 2 ** -Math.ceil(Math.log2(peak)) : 1;
  return values.map((value) => deep(value * scale));
}

// The only channel, or all where they are the same; where they differ the error brings them, for somebody to choose.
function mono(channels, rateHz) {
  const [first, ...others] = channels;
  for (const other of others) for (let i = 0; i < first.length; i++) if (other[i] !== first[i])
    throw new SoundError("stereo", {channels: channels.map((one) => ({samples: Float32Array.from(one), rateHz}))});
  return Float32Array.from(first);
}

async function decoded(bytes) {
  const rateHz = tag(bytes, 0) === "fLaC" ? (bytes[18] << 12) | (bytes[19] << 4) | (bytes[20] >> 4) : 0;
  const asked = rateHz >= 3000 && rateHz <= 384000 ? rateHz : 44100;
  try {
    const context = new OfflineAudioContext(1, 1, asked);      // at the file's own rate nothing is resampled
    const buffer = await context.decodeAudioData(bytes.slice().buffer);
    const channels = Array.from({length: buffer.numberOfChannels}, (_, c) => buffer.getChannelData(c));
    return {samples: mono(channels, buffer.sampleRate), rateHz: buffer.sampleRate};
  } catch (error) {
    if (error instanceof SoundError) throw error;
    throw new SoundError("unreadable");
  }
}

const tag = (bytes, at) => String.fromCharCode(...bytes.subarray(at, at + 4));

// Samples as a WAV file of 16 bits, for the browser's player.
export function asWav(samples, rateHz) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, words) => [...words].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rateHz, true); view.setUint32(28, 2 * rateHz, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * samples.length, true);
  const peak = samples.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-9);
  samples.forEach((x, i) => view.setInt16(44 + 2 * i, Math.round(x / peak * 30000), true));
  return new Blob([view.buffer], {type: "audio/wav"});
}

// Records from the microphone, as it is: no echo cancelling, no noise suppression, no automatic gain. `hear` gets the
// largest sample of each block, from 0 to 1.
export async function microphone(hear) {
  const stream = await navigator.mediaDevices.getUserMedia(
    {audio: {channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false}});
  const context = new AudioContext();
  await context.audioWorklet.addModule("recorder.js");
  const node = new AudioWorkletNode(context, "recorder", {numberOfOutputs: 0});
  const parts = [];
  node.port.onmessage = ({data}) => { parts.push(data); hear(data.reduce((most, x) => Math.max(most, Math.abs(x)), 0)); };
  context.createMediaStreamSource(stream).connect(node);
  return async () => {
    stream.getTracks().forEach((track) => track.stop());
    const rateHz = context.sampleRate;
    await context.close();
    const samples = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((at, part) => { samples.set(part, at); return at + part.length; }, 0);
    return {samples: samples.map((x) => Math.max(-1, Math.min(32767 / 32768, Math.round(x * 32768) / 32768))), rateHz};
  };
}
