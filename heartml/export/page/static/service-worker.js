// Keeps every file of this page, so that it works without a network. files.json names them, and the version of all of them.

const listed = async () => (await fetch("files.json", {cache: "no-store"})).json();

addEventListener("install", (event) => event.waitUntil((async () => {
  const {version, files} = await listed();
  const cache = await caches.open(`heartml-${version}`);
  await cache.addAll(["./", ...files]);
  await skipWaiting();
})()));

addEventListener("activate", (event) => event.waitUntil((async () => {
  await clients.claim();
})()));

// A newer version is fetched behind the page's back; it shows from the next visit on.
addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin || url.pathname.endsWith("/files.json")) return;
  event.respondWith((async () => {
    const names = (await caches.keys()).filter((name) => name.startsWith("heartml-"));
    for (const name of names.reverse()) {
      const found = await (await caches.open(name)).match(event.request, {ignoreSearch: true});
      if (found) return found;
    }
    return fetch(event.request);
  })());
  if (event.request.mode === "navigate") event.waitUntil(refresh());
});

async function refresh() {
  try {
    const {version, files} = await listed();
    const wanted = `heartml-${version}`, names = await caches.keys();
    if (!names.includes(wanted)) await (await caches.open(wanted)).addAll(["./", ...files]);
    for (const name of names) if (name.startsWith("heartml-") && name !== wanted) await caches.delete(name);
  } catch { /* no network: what is kept is shown */ }
}
