// The page: recordings in, their pictures and the model's answer out.
import * as model from "./model.js";
import * as picture from "./picture.js";
import * as sound from "./sound.js";
import {LANGUAGES, className, current, keepClasses, number, percent, say, use} from "./texts.js";

const LOCATIONS = ["AV", "PV", "TV", "MV", "Phc"];
const $ = (id) => document.getElementById(id);
const make = (name, values = {}, ...children) => {
  const element = Object.assign(document.createElement(name), values);
  element.append(...children);
  return element;
};

const LONGEST_TAKE_MS = 120_000;

let facts = null, recordings = [], verdict = null, status = ["loading", {}], problems = [];
let patient = 0;                     // what was begun for an earlier patient is dropped when it is done
let stopRecording = null, takes = 0, queue = Promise.resolve();
const remembered = (language) => { try { return language ? localStorage.setItem("language", language) : localStorage.getItem("language"); } catch { return null; } };

async function start() {
  await use(new URLSearchParams(location.search).get("lang") ?? remembered() ?? navigator.language.slice(0, 2));
  for (const [code, name] of Object.entries(LANGUAGES)) $("language").append(make("option", {value: code, textContent: name}));
  $("language").value = current();
  $("language").onchange = async ({target}) => {
    remembered(target.value);
    history.replaceState(null, "", location.pathname);      // or a link's language would come back
    await use(target.value);
    for (const one of recordings) one.item = null;
    if (stopRecording) $("record").textContent = say("stop");
    show();
    listExamples();
  };
  tell("loading");
  facts = await model.load();
  const title = document.querySelector("h1");
  title.dataset.text = ofOrgan("title");
  title.textContent = say(title.dataset.text);
  keepClasses(facts.own_classes === true, facts.title);
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
  $("clear").onclick = () => { begin(); tell("ready"); show(); $("files").focus(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("resize", redraw);
  listExamples();
}

// Another patient: nothing of the one before is left, nor comes later.
function begin() {
  patient += 1;
  if (stopRecording) { stopRecording(); ended(); }
  recordings.forEach(stop);
  recordings = []; verdict = null; problems = []; takes = 0;
}

async function listExamples() {
  const known = await (await fetch("examples/examples.json")).json().catch(() => []);
  $("examples").replaceChildren(...known.flatMap((one, i) => [i ? ", " : "", make("button", {
    type: "button", className: "text", 
    textContent: one.label === null ? one.patient : say("truth", {patient: one.patient, label: className(one.label)}),
    onclick: async () => {
      begin();
      show();
      const own = patient;
      const files = await Promise.all(one.files.map(async (name) => new File([await (await fetch(`examples/${name}`)).blob()], name)));
      if (own === patient) addFiles(files);
    },
  })]));
}

function addFiles(files) {
  const own = patient;
  for (const file of files) queue = queue.then(() => add(own, file.name, () => sound.read(file)));
}

async function add(own, name, read) {
  if (own !== patient) return;
  tell("listening", {name});
  try {
    const found = await read();
    check(found);
    if (own !== patient) return;
    if (recordings.some((other) => same(other.samples, found.samples))) throw new sound.SoundError("again", {name});
    const one = {name, location: place(name), ...found, picture: picture.prepare(found.samples, found.rateHz, facts.picture_hz)};
    one.answer = await model.recording(found);
    const together = await judged([...recordings, one]);
    if (own !== patient) return;
    recordings.push(one);
    verdict = together;
    tell("done", {name, decision: headOf(verdict)});
  } catch (error) {
    if (own !== patient) return;
    const why = error instanceof sound.SoundError ? [error.key === "rate" ? "rate.wrong" : error.key, error.values] : null;
    problems.push({name, why, message: String(error.message), channels: error.values?.channels ?? []});
    tell("error", {name, why: why ? say(...why) : String(error.message)});
  }
  const first = recordings.length === 1;
  show();
  if (first && $("answer").getBoundingClientRect().top > innerHeight - 120) $("answer").scrollIntoView();
}

const same = (one, other) => one.length === other.length && one.every((value, i) => value === other[i]);

function check({samples, rateHz}) {
  const {min_seconds: least, silence_peak: quiet} = facts.accepts;
  const mean = samples.reduce((sum, x) => sum + x, 0) / samples.length;
  if (samples.reduce((most, x) => Math.max(most, Math.abs(x - mean)), 0) < quiet) throw new sound.SoundError("silent");
  if (samples.length < least * rateHz) throw new sound.SoundError("short", {seconds: least});
}

const place = (name) => LOCATIONS.find((one) => new RegExp(`[_ -]${one}(_\\d+)?\\.\\w+$`).test(name)) ?? "";

// The answer for these recordings together; of the last one where the model is about recordings.
async function judged(all) {
  if (all.length === 0) return null;
  if (all.length === 1 || facts.unit !== "patient") return all.at(-1).answer;
  return model.patient(all.map((one) => one.answer.features));
}

async function record() {
  const button = $("record");
  if (stopRecording) {
    const stopNow = stopRecording, own = patient;
    ended();
    const found = await stopNow();
    takes += 1;
    queue = queue.then(() => add(own, say("take", {count: takes}), async () => found));
    return;
  }
  button.disabled = true;
  const own = patient;
  try {
    const stopNow = await sound.microphone(level), begun = performance.now();
    if (own !== patient) { stopNow(); return; }
    stopRecording = stopNow;
    button.classList.add("on");
    button.textContent = say("stop");
    $("level").ariaLabel = say("level");
    tell("recording");
    const tick = () => {
      if (stopRecording !== stopNow) return;
      const passed = performance.now() - begun;
      $("timer").textContent = `${Math.floor(passed / 1000)} s`;
      if (passed > LONGEST_TAKE_MS) record(); else setTimeout(tick, 250);
    };
    tick();
  } catch (error) {
    tell("microphone", {why: error.message});
  } finally {
    button.disabled = false;
  }
}

// The meter falls slowly, and shows 60 dB.
function level(peak) {
  if (!stopRecording) return;
  const meter = $("level"), now = Math.max(0, 1 + 20 * Math.log10(peak + 1e-9) / 60);
  meter.hidden = false;
  meter.value = Math.max(now, meter.value - 0.01);
  $("loudness").textContent = peak >= 0.99 ? say("level.clipped") : meter.value < 0.15 ? say("level.quiet") : "";
}

function ended() {
  stopRecording = null;
  $("level").hidden = true;
  $("level").value = 0;
  $("loudness").textContent = "";
  $("record").classList.remove("on");
  $("record").textContent = say("record");
  $("timer").textContent = "";
}

function tell(key, values = {}) {
  if (stopRecording && key !== "microphone") [key, values] = ["recording", {}];      // as long as the microphone is on
  status = [key, values];
  $("status").textContent = say(key, values);
  $("status").className = ["error", "microphone", "broken"].includes(key) ? "error" : "soft";
}

function show() {
  $("status").textContent = say(...status);
  $("model").textContent = facts?.model ?? "";
  $("problems").replaceChildren(...problems.map((one) =>
    make("li", {}, say("error", {name: one.name, why: one.why ? say(...one.why) : one.message}), ...one.channels.map((channel, i) => choice(one, channel, i)))));
  $("skip").hidden = !verdict;
  $("answer").hidden = !verdict;
  $("verdict").replaceChildren(...(verdict ? answerOf(verdict) : []));
  list();
  if (facts) about();
  redraw();
}

// A button for one channel of a file whose channels differ.
function choice(problem, channel, i) {
  const words = problem.channels.length === 2 ? say(`channel.${i + 1}`) : say("channel.n", {count: i + 1}), {name} = problem;
  return make("button", {type: "button", className: "text", textContent: words, ariaLabel: say("channel.of", {channel: words, name}), onclick: () => {
    problems = problems.filter((other) => other !== problem);
    const own = patient;
    queue = queue.then(() => add(own, say("channel.name", {name, channel: words}), async () => sound.usable(channel)));
    show();
    $("files").focus();
  }});
}

const headOf = (found) => found.refer ? say("refer")
  : say("confidence", {decision: className(found.topClass), confidence: percent(found.confidence)});

// Adds and removes what is new and gone; what stays is not made again, so that the keyboard keeps its place.
function list() {
  const wanted = recordings.map((one) => one.item ??= item(one));
  for (const child of [...$("recordings").children]) if (!wanted.includes(child)) child.remove();
  for (const element of wanted) if (!element.isConnected) $("recordings").append(element);
  for (const line of document.querySelectorAll(".alone")) line.hidden = recordings.length < 2;
}

function answerOf(found) {
  const decided = className(found.topClass), sure = percent(found.confidence), parts = [];
  parts.push(make("p", {className: found.refer ? "decision refer" : "decision", textContent: headOf(found)}));
  if (found.refer) parts.push(make("ul", {className: "reasons"}, ...found.checks.map((name) => make("li", {textContent: reason(name)}))));
  const many = facts.unit === "patient" && recordings.length > 1;
  const bad = recordings.filter((one) => one.answer.ownChecks.length), names = new Set(recordings.map((one) => /^(\d+)_/.exec(one.name)?.[1]).filter(Boolean));
  if (many && bad.length) parts.push(make("p", {className: "warning", textContent: say("not_judged", {
    count: bad.length, all: recordings.length, list: bad.map((one) => `${one.name} (${one.answer.ownChecks.map((name) => reason(name, one)).join("; ")})`).join(", ")})}));
  if (many && names.size > 1) parts.push(make("p", {className: "warning", textContent: say("several_patients", {list: [...names].join(", ")})}));
  if (found.outside) return [...parts, make("p", {textContent: say("what_to_do")})];
  if (found.refer) parts.push(make("p", {textContent: say("leaning", {decision: decided, confidence: sure})}));
  parts.push(make("p", {className: "soft", textContent: `${say(many ? "from.many" : "from.one", {count: recordings.length})} ${say("per")}`}));
  parts.push(make("table", {className: "bars"}, make("tbody", {}, ...Object.entries(found.calibrated).map(([name, share]) =>
    make("tr", {}, make("th", {scope: "row", textContent: className(name)}),
         make("td", {}, make("progress", {max: 1, value: share, ariaHidden: "true"})), make("td", {textContent: percent(share)}))))));
  return parts;
}

function reason(name, of = null) {
  const shortest = of ?? recordings.reduce((a, b) => a.answer.quality.seconds < b.answer.quality.seconds ? a : b);
  const worst = shortest.answer.quality;
  const limit = {short: () => number(facts.signal_limits.seconds, 2), unsure: () => percent(facts.refer_below)}[name];
  return say(`check.${name}`, {seconds: number(worst.seconds ?? 0, 2), limit: limit ? limit() : ""});
}

function ofOrgan(key) {      // the words of a model that is not about hearts
  return facts.organ ? `${key}.${facts.organ}` : key;
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
  ].filter(([applies]) => applies).map(([, name, value]) => say(name === "contrast_db" ? ofOrgan(`warning.${name}`) : `warning.${name}`, {value}));
}

function item(one) {
  const {answer, name} = one, beats = answer.states.filter((state) => state === 0).length;
  const judgeable = answer.ownChecks.length === 0;
  const canvas = make("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", say(judgeable && beats ? "picture" : "picture.none", {seconds: number(one.picture.seconds, 1), hz: number(one.picture.top, 0), beats}));
  canvas.onclick = ({clientX}) => seek(one, picture.secondsAt(canvas, one.picture, clientX));
  one.canvas = canvas;
  one.button = make("button", {type: "button", onclick: () => toggle(one)});
  named(one);
  one.slider = make("input", {type: "range", min: 0, max: one.picture.seconds, step: 0.1, value: one.player?.currentTime ?? 0,
                              ariaLabel: say("position.of", {name}), oninput: ({target}) => seek(one, Number(target.value))});
  const places = make("select", {onchange: ({target}) => { one.location = target.value; }, ariaLabel: say("location.of", {name}), title: say("location")},
    ...["", ...LOCATIONS].map((place) => make("option", {value: place, textContent: place ? say(`place.${place}`) : say("location.none"), selected: place === one.location})));
  const remove = make("button", {type: "button", className: "text", textContent: say("remove"), ariaLabel: say("remove.of", {name}), onclick: async () => {
    stop(one);
    const place = recordings.indexOf(one), own = patient, left = recordings.filter((other) => other !== one), found = await judged(left);
    if (own !== patient) return;
    recordings = left;
    verdict = found;
    tell("removed", {name});
    show();
    (document.querySelectorAll("li.recording button.text")[Math.min(place, left.length - 1)] ?? $("files")).focus();
  }});
  const lines = judgeable && !facts.organ ? [make("p", {textContent: answer.heartRate ? say("rate", {rate: number(answer.heartRate, 0)}) : say("rate.none")})] : [];
  const own = answer.ownChecks.map((check) => reason(check, one));
  if (judgeable)
    lines.push(make("p", {className: "soft alone", textContent: say("alone", {list: Object.entries(answer.recordingProbabilities).map(([name, share]) => `${className(name)} ${percent(share)}`).join(", ")})}));
  for (const words of [...own, ...warnings(answer.quality)]) lines.push(make("p", {className: "warning", textContent: words}));
  const legend = make("p", {className: "legend", ariaHidden: "true"}, ...picture.STATES.map((state) => make("span", {className: `tone-${state}`, textContent: say(`state.${state}`)})));
  return make("li", {className: "recording"}, make("header", {}, make("h3", {textContent: one.name}), places, one.button, remove), canvas, one.slider,
              ...(answer.states.length && judgeable ? [legend] : []), ...lines);
}

function named(one) {
  const plays = one.player && !one.player.paused;
  one.button.textContent = say(plays ? "pause" : "play");
  one.button.ariaLabel = say(plays ? "pause.of" : "play.of", {name: one.name});
}

function player(one) {
  if (!one.player) {
    one.player = new Audio(URL.createObjectURL(sound.asWav(one.samples, one.rateHz)));
    one.player.onended = () => { named(one); redraw(); };
  }
  return one.player;
}

async function toggle(one) {
  const own = player(one);
  if (!own.paused) { own.pause(); named(one); return; }
  recordings.filter((other) => other !== one && other.player).forEach((other) => { other.player.pause(); named(other); });
  await own.play();
  named(one);
  const follow = () => {
    picture.draw(one.canvas, one.picture, one.answer, own.currentTime);
    one.slider.value = own.currentTime;
    if (!own.paused) requestAnimationFrame(follow);
  };
  follow();
}

function seek(one, seconds) {
  player(one).currentTime = seconds;
  one.slider.value = seconds;
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
