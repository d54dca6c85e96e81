// Lists what openapi.json describes.
const example = document.querySelector("pre");
example.textContent = example.textContent.replaceAll("ORIGIN", location.origin);

fetch("openapi.json").then((answer) => answer.json()).then(({info, paths}) => {
  document.getElementById("notice").textContent = info.description;
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, {summary, description, requestBody}] of Object.entries(methods)) {
      const head = document.createElement("h2"), words = document.createElement("p");
      head.innerHTML = "<span class=method></span> <code></code>";
      head.firstChild.textContent = method.toUpperCase();
      head.lastChild.textContent = path;
      words.textContent = `${summary}. ${description ?? ""}`;
      document.getElementById("paths").append(head, words);
      if (requestBody) {
        const kinds = document.createElement("p");
        kinds.textContent = `Body: ${Object.keys(requestBody.content).join(" or ")}`;
        document.getElementById("paths").append(kinds);
      }
    }
  }
});
