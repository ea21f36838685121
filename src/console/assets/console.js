// The console's one script: live parts, passkeys, copying. The server renders every page; this only asks for
// the same page again and puts the parts marked `data-live` in place of the old ones.
"use strict";

const PAUSE_MS = 2500;
const PAUSE_FAST_MS = 1000;
const PAUSE_SLOW_MS = 5000;
const PAUSE_MAX_MS = 30000;

const csrf = document.querySelector('meta[name="csrf-token"]')?.content ?? "";

// === calls ===

async function post(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json", "x-csrf-token": csrf },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error("The daemon cannot be reached. Try again.");
  }
  const said = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(said.text || "That did not work. Reload the page and try again.");
  return said;
}

function say(text, fine = false) {
  const message = document.getElementById("message");
  if (!message) return;
  message.textContent = text;
  message.classList.toggle("fine", fine);
}

// Runs one thing at a time, and tells what came of it.
async function busy(button, work) {
  button.disabled = true;
  say("");
  try {
    await work();
  } catch (error) {
    const cancelled = error instanceof DOMException && (error.name === "NotAllowedError" || error.name === "AbortError");
    say(cancelled ? "No passkey was used. Try again when you are ready." : error.message);
  } finally {
    button.disabled = false;
  }
}

// === passkeys ===

const toBytes = (text) => {
  const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(plain, (character) => character.charCodeAt(0));
};
const toText = (buffer) => {
  let plain = "";
  for (const byte of new Uint8Array(buffer)) plain += String.fromCharCode(byte);
  return btoa(plain).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
};

function needPasskeys() {
  if (!window.PublicKeyCredential) throw new Error("This browser has no passkeys here. Use https, and a browser of today.");
}

async function createPasskey(options) {
  needPasskeys();
  const publicKey = { ...options.publicKey };
  publicKey.challenge = toBytes(publicKey.challenge);
  publicKey.user = { ...publicKey.user, id: toBytes(publicKey.user.id) };
  publicKey.excludeCredentials = (publicKey.excludeCredentials ?? []).map((known) => ({ ...known, id: toBytes(known.id) }));
  const made = await navigator.credentials.create({ publicKey });
  return {
    id: made.id,
    rawId: toText(made.rawId),
    type: made.type,
    extensions: {},
    response: {
      attestationObject: toText(made.response.attestationObject),
      clientDataJSON: toText(made.response.clientDataJSON),
    },
  };
}

async function usePasskey(options) {
  needPasskeys();
  const publicKey = { ...options.publicKey };
  publicKey.challenge = toBytes(publicKey.challenge);
  publicKey.allowCredentials = (publicKey.allowCredentials ?? []).map((known) => ({ ...known, id: toBytes(known.id) }));
  const used = await navigator.credentials.get({ publicKey });
  return {
    id: used.id,
    rawId: toText(used.rawId),
    type: used.type,
    extensions: {},
    response: {
      authenticatorData: toText(used.response.authenticatorData),
      clientDataJSON: toText(used.response.clientDataJSON),
      signature: toText(used.response.signature),
      userHandle: used.response.userHandle ? toText(used.response.userHandle) : null,
    },
  };
}

async function signIn(button) {
  const { ceremony, options } = await post("/console/sign-in/begin", {});
  const credential = await usePasskey(options);
  await post("/console/sign-in/finish", { ceremony, credential });
  location.assign(button.dataset.next || "/console");
}

async function enrol(form) {
  const invitation = location.hash.slice(1);
  if (!invitation) throw new Error("The link is not whole. Open it exactly as you got it.");
  const label = form.elements.label.value.trim();
  const { ceremony, options } = await post("/console/enrol/begin", { invitation });
  const credential = await createPasskey(options);
  await post("/console/enrol/finish", { ceremony, label, credential });
  location.replace("/console/sign-in?why=enrolled");
}

async function approve(button) {
  const path = `/console/intents/${encodeURIComponent(button.dataset.approve)}/approval`;
  const { ceremony, options } = await post(`${path}/begin`, { digest: button.dataset.digest });
  say("Your passkey is asked for…", true);
  const credential = await usePasskey(options);
  const { approvals, required } = await post(`${path}/finish`, { ceremony, credential });
  say(`Approved: ${approvals} of ${required}.`, true);
  await refresh();
}

async function resolve(form) {
  const path = `/console/disputes/${encodeURIComponent(form.dataset.dispute)}/resolution`;
  const decision = { resolution: form.elements.resolution.value, note: form.elements.note.value.trim() };
  for (const name of ["refund_to", "refund_amount"]) {
    const field = form.elements[name];
    if (!field.disabled && field.value.trim()) decision[name] = field.value.trim();
  }
  const { ceremony, options } = await post(`${path}/begin`, decision);
  say("Your passkey is asked for…", true);
  const credential = await usePasskey(options);
  await post(`${path}/finish`, { ceremony, credential });
  say("Decided.", true);
  form.remove();
  await refresh();
}

// Only the fields that the chosen decision has a use for.
function choose(form) {
  const chosen = form.elements.resolution.value;
  for (const part of form.querySelectorAll("[data-for]")) {
    const wanted = part.dataset.for.split(" ").includes(chosen);
    part.hidden = !wanted;
    for (const field of part.querySelectorAll("input")) {
      field.disabled = !wanted;
      field.required = wanted;
    }
  }
}

async function signOut() {
  await post("/console/session/end", {});
  location.assign("/console/sign-in?why=out");
}

async function endSession(button) {
  await post(`/console/sessions/${encodeURIComponent(button.dataset.endSession)}/end`, {});
  if (button.dataset.here !== undefined) location.assign("/console/sign-in?why=out");
  else await refresh();
}

async function endSessions() {
  await post("/console/sessions/end", {});
  location.assign("/console/sign-in?why=out");
}

// === live parts ===

let refreshing = false;

async function refresh() {
  if (refreshing) return true;
  refreshing = true;
  try {
    const response = await fetch(location.href, { headers: { accept: "text/html" } });
    // The session ended: the answer is the page to sign in at.
    if (response.redirected && new URL(response.url).pathname.startsWith("/console/sign-in")) {
      location.assign(response.url);
      return true;
    }
    if (!response.ok) return false;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (!other || other.innerHTML === part.innerHTML) continue;
      // What somebody is on, or has chosen to copy, is not taken from under them.
      if (part.contains(document.activeElement) && document.activeElement !== document.body) {
        const place = path(part, document.activeElement);
        part.replaceWith(other);
        follow(other, place)?.focus({ preventScroll: true });
      } else if (!chosen(part)) {
        part.replaceWith(other);
      }
    }
    const clock = fresh.getElementById("live-clock");
    if (clock) for (const id of ["live-clock", "offline-since"]) document.getElementById(id).textContent = clock.textContent;
    return true;
  } catch {
    return false;
  } finally {
    refreshing = false;
  }
}

// Which child of which child; the same place in the new part has the focus afterwards.
function path(from, to) {
  const steps = [];
  for (let node = to; node !== from; node = node.parentElement) steps.unshift([...node.parentElement.children].indexOf(node));
  return steps;
}
function follow(from, steps) {
  return steps.reduce((node, step) => node?.children[step], from);
}
function chosen(part) {
  const selection = document.getSelection();
  return selection !== null && !selection.isCollapsed && part.contains(selection.anchorNode);
}

function live() {
  if (!document.querySelector("[data-live]")) return;
  const state = document.getElementById("live-state");
  const offline = document.getElementById("offline");
  let pause = 0;
  const turn = async () => {
    if (document.hidden) {
      document.addEventListener("visibilitychange", turn, { once: true });
      return;
    }
    const well = await refresh();
    state.dataset.state = well ? "on" : "off";
    offline.hidden = well;
    const marked = (mark) => document.querySelector(mark) !== null;
    const usual = marked("[data-live-fast]") ? PAUSE_FAST_MS : marked("[data-live-slow]") ? PAUSE_SLOW_MS : PAUSE_MS;
    pause = well ? usual : Math.min(Math.max(pause, usual) * 2, PAUSE_MAX_MS);
    setTimeout(turn, pause);
  };
  state.dataset.state = "on";
  setTimeout(turn, PAUSE_FAST_MS);
}

// === the page ===

// On a phone the navigation is wider than the screen: begin it where we are.
const here = document.querySelector(".top nav [aria-current]");
if (here) here.closest("nav").scrollLeft = here.offsetLeft - (here.closest("nav").clientWidth - here.offsetWidth) / 2;

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.signIn !== undefined) busy(button, () => signIn(button));
  if (button.dataset.approve) busy(button, () => approve(button));
  if (button.dataset.signOut !== undefined) busy(button, signOut);
  if (button.dataset.endSession) busy(button, () => endSession(button));
  if (button.dataset.endSessions !== undefined) busy(button, endSessions);
  if (button.dataset.copy) {
    const before = button.textContent;
    navigator.clipboard.writeText(button.dataset.copy).then(
      () => { button.textContent = "Copied"; },
      () => { button.textContent = "Cannot copy"; },
    ).then(() => setTimeout(() => { button.textContent = before; }, 1500));
  }
});

document.getElementById("enrol-form")?.addEventListener("submit", (event) => {
  event.preventDefault();
  busy(event.submitter ?? event.target.querySelector("button"), () => enrol(event.target));
});

const resolving = document.getElementById("resolve-form");
if (resolving) {
  choose(resolving);
  resolving.addEventListener("change", () => choose(resolving));
  resolving.addEventListener("submit", (event) => {
    event.preventDefault();
    busy(event.submitter ?? resolving.querySelector("button"), () => resolve(resolving));
  });
}

live();
