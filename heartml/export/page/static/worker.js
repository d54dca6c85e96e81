// Runs the model beside the page, so that the page answers while it computes.
import * as ort from "./ort/ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.logLevel = "error";

const sessions = {};
const session = (file) => sessions[file] ??= ort.InferenceSession.create(
  new URL(`./${file}`, import.meta.url).href, {graphOptimizationLevel: "basic"});

const plain = (value) => typeof value === "bigint" ? Number(value) : value;
const read = (outputs) => Object.fromEntries(Object.entries(outputs).map(([name, {data, dims}]) =>
  [name, dims.length === 0 ? plain(data[0]) : Array.from(data, plain)]));

const tasks = {
  async load() { await Promise.all([session("model.onnx"), session("patient.onnx")]); },
  async recording({samples, rateHz}) {
    return read(await (await session("model.onnx")).run({
      samples: new ort.Tensor("float32", samples, [samples.length]),
      sample_rate_hz: new ort.Tensor("int64", BigInt64Array.of(BigInt(rateHz)), []),
    }));
  },
  async patient({features}) {
    const all = Float64Array.from(features.flat());
    return read(await (await session("patient.onnx")).run({
      features: new ort.Tensor("float64", all, [features.length, features[0].length]),
    }));
  },
};

addEventListener("message", async ({data: {id, task, input}}) => {
  try {
    postMessage({id, found: await tasks[task](input)});
  } catch (error) {
    postMessage({id, error: String(error?.message ?? error)});
  }
});
