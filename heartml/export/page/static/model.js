// The model: samples in, an answer out. What its outputs mean stands in export.json.

let facts = null, worker = null, number = 0;
const waiting = new Map();

export async function load() {
  facts = await (await fetch("export.json")).json();
  worker = new Worker("worker.js", {type: "module"});
  worker.onmessage = ({data: {id, found, error}}) => {
    const {resolve, reject} = waiting.get(id);
    waiting.delete(id);
    if (error) reject(new Error(error)); else resolve(found);
  };
  worker.onerror = (event) => { for (const {reject} of waiting.values()) reject(new Error(event.message)); waiting.clear(); };
  return facts;
}

const ask = (task, input = {}) => new Promise((resolve, reject) => {
  waiting.set(++number, {resolve, reject});
  worker.postMessage({id: number, task, input});
});

export const warmUp = () => ask("load");

export async function recording({samples, rateHz}) {
  const found = await ask("recording", {samples, rateHz});
  return {...answer(found), features: found.features,
          quality: Object.fromEntries(facts.quality.map((name, i) => [name, found.quality[i]])),
          ownChecks: facts.checks.filter((_, i) => found.recording_checks[i]),
          recordingProbabilities: byClass(found.recording_probabilities),
          starts: found.state_starts_s ?? [], states: found.states ?? [],
          heartRate: Number.isFinite(found.heart_rate_per_min) ? found.heart_rate_per_min : null};
}

export async function patient(features) {
  return answer(await ask("patient", {features}));
}

function answer(found) {
  const checks = facts.checks.filter((_, i) => found.reasons[i]);
  return {topClass: facts.classes[found.decision], refer: checks.length > 0, checks,
          outside: checks.some((name) => name !== "unsure"), confidence: found.confidence,
          calibrated: byClass(found.calibrated), probabilities: byClass(found.probabilities)};
}

const byClass = (values) => Object.fromEntries(facts.classes.map((name, i) => [name, values[i]]));
