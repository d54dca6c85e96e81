// The page: recordings in, their pictures and the model's answer out.
import * as model from "./model.js";
import * as picture from "./picture.js";
import * as sound from "./sound.js";
import {LANGUAGES, className, current, number, percent, say, use} from "./texts.js";

const LOCATIONS = ["AV", "PV", "TV", "MV", "Phc"];
const $ = (id) => document.getElementById(id);
const make = (name, values = {}, ...children) => {
  const element = Object.assign(document.createElement(name), values);
  element.append(...children);
  return element;
};

let facts = null, recordings = [], verdict = null, status = ["loading", {}], stopRecording = null, queue = Promise.resolve();

async function start() {
  await use(new URLSearchParams(location.search).get("lang") ?? localStorage.getItem("language") ?? navigator.language.slice(0, 2));
  for (const [code, name] of Object.entries(LANGUAGES)) $("language").append(make("option", {value: code, textContent: name}));
  $("language").value = current();
  $("language").onchange = async ({target}) => { localStorage.setItem("language", target.value); await use(target.value); show(); };
  tell("loading");
  facts = await model.load();
  show();
  await model.warmUp();
  if (status[0] === "loading") tell("ready");
  wire();
  document.body.dataset.ready = "true";
  if ("serviceWorker" in navigator) await navigator.serviceWorker.register("service-worker.js");
}

function wire() {
  $("files").onchange = ({target}) => { addFiles([...target.files]); target.value = ""; };
  const drop = $("drop");
  for (const name of ["dragover", "dragenter"]) addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) addEventListener(name, () => drop.classList.remove("over"));
  addEventListener("drop", (event) => { event.preventDefault(); addFiles([...event.dataTransfer.files]); });
  $("record").onclick = record;
  $("clear").onclick = () => { recordings.forEach(stop); recordings = []; verdict = null; tell("ready"); show(); $("files").focus(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("resize", redraw);
  listExamples();
}

async function listExamples() {
  const known = await (await fetch("examples/examples.json")).json().catch(() => []);
  $("examples").replaceChildren(...known.flatMap((one, i) => [i ? ", " : "", make("button", {
    type: "button", className: "text", textContent: `${one.patient} (${className(one.label)})`,
    onclick: async () => {
      const files = await Promise.all(one.files.map(async (name) => new File([await (await fetch(`examples/${name}`)).blob()], name)));
      $("clear").onclick();
      addFiles(files);
    },
  })]));
}

function addFiles(files) {
  for (const file of files) queue = queue.then(() => add(file.name, () => sound.read(file)));
}

async function add(name, read) {
  tell("listening", {name});
  try {
    const found = await read();
    check(found);
    const one = {name, location: place(name), ...found, picture: picture.prepare(found.samples, found.rateHz)};
    one.answer = await model.recording(found);
    recordings.push(one);
    await judge();
    tell("done", {name});
  } catch (error) {
    const why = error instanceof sound.SoundError ? say(error.key === "rate" ? "rate.wrong" : error.key, error.values) : String(error.message);
    tell("error", {name, why});
  }
  show();
}

function check({samples, rateHz}) {
  const {min_seconds: least, silence_peak: quiet} = facts.accepts;
  const mean = samples.reduce((sum, x) => sum + x, 0) / samples.length;
  if (samples.reduce((most, x) => Math.max(most, Math.abs(x - mean)), 0) < quiet) throw new sound.SoundError("silent");
  if (samples.length < least * rateHz) throw new sound.SoundError("short", {seconds: least});
}

const place = (name) => LOCATIONS.find((one) => new RegExp(`[_ -]${one}(_\\d+)?\\.\\w+$`).test(name)) ?? "";

async function judge() {
  if (recordings.length === 0) verdict = null;
  else if (recordings.length === 1 || facts.unit !== "patient") verdict = recordings.at(-1).answer;
  else verdict = await model.patient(recordings.map((one) => one.answer.features));
}

async function record() {
  const button = $("record");
  if (stopRecording) {
    const stopNow = stopRecording;
    stopRecording = null;
    button.setAttribute("aria-pressed", "false");
    button.textContent = say("record");
    const found = await stopNow();
    await add(`${new Date().toLocaleTimeString(current())}`, async () => found);
    return;
  }
  try {
    const begun = performance.now(), stopNow = await sound.microphone();
    stopRecording = stopNow;
    button.setAttribute("aria-pressed", "true");
    tell("recording");
    const tick = () => {
      if (stopRecording !== stopNow) return;
      button.textContent = say("stop", {seconds: Math.floor((performance.now() - begun) / 1000)});
      setTimeout(tick, 250);
    };
    tick();
  } catch (error) {
    tell("microphone", {why: error.message});
  }
}

function tell(key, values = {}) {
  status = [key, values];
  $("status").textContent = say(key, values);
  $("status").className = ["error", "microphone", "broken"].includes(key) ? "error" : "soft";
}

function show() {
  $("status").textContent = say(...status);
  $("model").textContent = facts?.model ?? "";
  $("answer").hidden = !verdict;
  $("verdict").replaceChildren(...(verdict ? answerOf(verdict) : []));
  $("recordings").replaceChildren(...recordings.map(item));
  if (facts) about();
  redraw();
}

function answerOf(found) {
  const decided = className(found.topClass), sure = percent(found.confidence), parts = [];
  const head = found.refer ? say("refer") : say("confidence", {decision: decided, confidence: sure});
  parts.push(make("p", {className: found.refer ? "decision refer" : "decision", textContent: head}));
  if (found.refer) parts.push(make("ul", {className: "reasons"}, ...found.checks.map((name) => make("li", {textContent: reason(name)}))));
  if (found.outside) return [...parts, make("p", {textContent: say("what_to_do")})];
  if (found.refer) parts.push(make("p", {textContent: say("leaning", {decision: decided, confidence: sure})}));
  const many = facts.unit === "patient" && recordings.length > 1;
  parts.push(make("p", {className: "soft", textContent: `${say(many ? "from.many" : "from.one", {count: recordings.length})} ${say("per")}`}));
  parts.push(make("table", {className: "bars"}, make("tbody", {}, ...Object.entries(found.calibrated).map(([name, share]) =>
    make("tr", {}, make("th", {scope: "row", textContent: className(name)}),
         make("td", {}, make("progress", {max: 1, value: share, ariaLabel: className(name)})), make("td", {textContent: percent(share)}))))));
  return parts;
}

function reason(name) {
  const worst = recordings.length ? recordings.reduce((a, b) => a.answer.quality.seconds < b.answer.quality.seconds ? a : b).answer.quality : {};
  const limit = {short: () => number(facts.signal_limits.seconds, 2), unsure: () => percent(facts.refer_below)}[name];
  return say(`check.${name}`, {seconds: number(worst.seconds ?? 0, 2), limit: limit ? limit() : ""});
}

function warnings({silent_share, seconds, clipped_share, peak, dc, heard_bandwidth_hz, contrast_db}) {
  const limits = facts.warnings;
  return [
    [silent_share >= 0.5, "silent_share", percent(silent_share)],
    [seconds < limits.short_seconds, "seconds", number(seconds, 2)],
    [clipped_share > limits.clipped_share, "clipped_share", percent(clipped_share)],
    [peak < limits.quiet_peak, "peak", number(peak, 3)],
    [Math.abs(dc) > limits.dc_offset, "dc", number(dc, 2)],
    [heard_bandwidth_hz < limits.bandwidth_hz, "heard_bandwidth_hz", number(heard_bandwidth_hz, 0)],
    [contrast_db < limits.contrast_db, "contrast_db", number(contrast_db, 1)],
  ].filter(([applies]) => applies).map(([, name, value]) => say(`warning.${name}`, {value}));
}

function item(one) {
  const {answer} = one, beats = answer.states.filter((state) => state === 0).length;
  const canvas = make("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", say("picture", {seconds: number(one.picture.seconds, 1), beats}));
  canvas.onclick = ({clientX}) => seek(one, picture.secondsAt(canvas, one.picture, clientX));
  one.canvas = canvas;
  one.button = make("button", {type: "button", textContent: say(one.player && !one.player.paused ? "pause" : "play"), onclick: () => toggle(one)});
  const places = make("select", {onchange: ({target}) => { one.location = target.value; }, ariaLabel: say("location")},
    ...["", ...LOCATIONS].map((name) => make("option", {value: name, textContent: name || say("location.none"), selected: name === one.location})));
  const remove = make("button", {type: "button", className: "text", textContent: say("remove"), onclick: async () => {
    stop(one);
    recordings = recordings.filter((other) => other !== one);
    await judge();
    show();
  }});
  const lines = [make("p", {textContent: answer.heartRate ? say("rate", {rate: number(answer.heartRate, 0)}) : say("rate.none")})];
  const own = answer.checks.filter((name) => name !== "unsure").map(reason);
  if (!answer.outside && recordings.length > 1)
    lines.push(make("p", {className: "soft", textContent: say("alone", {list: Object.entries(answer.recordingProbabilities).map(([name, share]) => `${className(name)} ${percent(share)}`).join(", ")})}));
  for (const words of [...own, ...warnings(answer.quality)]) lines.push(make("p", {className: "warning", textContent: words}));
  const legend = make("p", {className: "legend", ariaHidden: "true"}, ...picture.STATES.map((state) => make("span", {className: `tone-${state}`, textContent: say(`state.${state}`)})));
  return make("li", {className: "recording"}, make("header", {}, make("h3", {textContent: one.name}), places, one.button, remove), canvas,
              ...(answer.states.length ? [legend] : []), ...lines);
}

function player(one) {
  if (!one.player) {
    one.player = new Audio(URL.createObjectURL(sound.asWav(one.samples, one.rateHz)));
    one.player.onended = () => { one.button.textContent = say("play"); redraw(); };
  }
  return one.player;
}

async function toggle(one) {
  const own = player(one);
  if (!own.paused) { own.pause(); one.button.textContent = say("play"); return; }
  recordings.filter((other) => other !== one && other.player).forEach((other) => { other.player.pause(); other.button.textContent = say("play"); });
  await own.play();
  one.button.textContent = say("pause");
  const follow = () => { picture.draw(one.canvas, one.picture, one.answer, own.currentTime); if (!own.paused) requestAnimationFrame(follow); };
  follow();
}

function seek(one, seconds) {
  player(one).currentTime = seconds;
  picture.draw(one.canvas, one.picture, one.answer, seconds);
}

function stop(one) {
  if (one.player) { one.player.pause(); URL.revokeObjectURL(one.player.src); }
}

function redraw() {
  for (const one of recordings) picture.draw(one.canvas, one.picture, one.answer, one.player ? one.player.currentTime : null);
}

function about() {
  const compared = facts.compared && say("compared", {difference: facts.compared.largest_difference.toExponential(1), count: facts.compared.recordings});
  const known = {model: facts.model, licence: facts.licence, data_licences: facts.data_licences.join(", "), data: facts.data, run_id: facts.run_id, commit: facts.commit, compared};
  $("facts").replaceChildren(...Object.entries(known).filter(([, value]) => value).flatMap(([key, value]) =>
    [make("dt", {textContent: say(`fact.${key}`)}), make("dd", {textContent: value})]));
  $("cautions").replaceChildren(...facts.cautions.map((words) => make("li", {className: "warning", textContent: words})));
}

start().catch((error) => tell("broken", {why: error.message}));
