// Keeps every file of this page, so that it works without a network. files.json names them. A page of another version has
// another VERSION: it is fetched whole, beside this one, and takes over when no tab shows this one any more.

const VERSION = "development";
const MINE = `heartml ${registration.scope} `, CACHE = MINE + VERSION;

addEventListener("install", (event) => event.waitUntil((async () => {
  const {files} = await (await fetch("files.json", {cache: "no-store"})).json();
  await (await caches.open(CACHE)).addAll(["./", ...files].map((name) => new Request(name, {cache: "no-cache"})));
})()));

addEventListener("activate", (event) => event.waitUntil((async () => {
  for (const name of await caches.keys()) if (name.startsWith(MINE) && name !== CACHE) await caches.delete(name);
  await clients.claim();
})()));

addEventListener("fetch", (event) => {
  if (event.request.method !== "GET" || !event.request.url.startsWith(registration.scope)) return;
  event.respondWith((async () =>
    await (await caches.open(CACHE)).match(event.request, {ignoreSearch: event.request.mode === "navigate"})
      ?? fetch(event.request))());
});
