// Every word of the page. A translation is one more file in texts/ and one more line here.

export const LANGUAGES = {en: "English", de: "Deutsch"};
let texts = {}, language = "en", ownClasses = false, task = "";

export async function use(wanted) {
  language = Object.hasOwn(LANGUAGES, wanted) ? wanted : "en";
  const english = await (await fetch("texts/en.json")).json();
  texts = {...english, ...(language === "en" ? {} : await (await fetch(`texts/${language}.json`)).json())};
  document.documentElement.lang = language;
  document.title = `HeartML: ${texts.title}`;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
}

export const current = () => language;
export const say = (key, values = {}) => (texts[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
export const className = (name) => ownClasses ? name : texts[`class.${task}.${name}`] ?? texts[`class.${name}`] ?? name.replaceAll("_", " ");
// `Present` is a murmur in one task and a stenosis in another; in a task of somebody's own it may be anything.
export const keepClasses = (own, ofTask) => { ownClasses = own; task = ofTask; };
export const percent = (share) => new Intl.NumberFormat(language, {style: "percent", maximumFractionDigits: 0}).format(share);
export const number = (value, digits) => new Intl.NumberFormat(language, {minimumFractionDigits: digits, maximumFractionDigits: digits}).format(value);
