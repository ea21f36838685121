// Drives Chromium for tests/it/console/browser.rs: one order a line on standard input, one answer a line on
// standard output.
//
//   node tests/console/drive.mjs CHROMIUM ORIGIN PICTURES

import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [executablePath, origin, pictures] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const WAIT_MS = 20_000;
const LOOKS = [
  ['desktop', { width: 1280, height: 860 }, 'light'],
  ['desktop', { width: 1280, height: 860 }, 'dark'],
  ['phone', { width: 390, height: 844 }, 'light'],
  ['phone', { width: 390, height: 844 }, 'dark'],
];

mkdirSync(pictures, { recursive: true });
const browser = await chromium.launch({ executablePath, headless: true, args: ['--no-sandbox', '--disable-gpu'] });
const context = await browser.newContext({ reducedMotion: 'reduce', permissions: ['clipboard-write'] });
const page = await context.newPage();
page.setDefaultTimeout(WAIT_MS);

const told = [];
// What the browser reports and we mean: pages that are refused (404), which the test asks for, and that we take
// no RS256.
const meant = /Failed to load resource|net::ERR_INTERNET_DISCONNECTED|pubKeyCredParams is missing at least one of the default algorithm identifiers/;
page.on('console', (message) => {
  if (['error', 'warning'].includes(message.type()) && !meant.test(message.text())) told.push(message.text());
});
page.on('pageerror', (error) => told.push(String(error)));
page.on('request', (request) => {
  if (!request.url().startsWith(`${origin}/`) && !request.url().startsWith('data:')) told.push(`asked elsewhere: ${request.url()}`);
});

const cdp = await context.newCDPSession(page);
await cdp.send('WebAuthn.enable');
await cdp.send('WebAuthn.addVirtualAuthenticator', {
  options: {
    protocol: 'ctap2',
    transport: 'usb',
    hasResidentKey: true,
    hasUserVerification: true,
    isUserVerified: true,
    automaticPresenceSimulation: true,
  },
});

let marks = 0;

const orders = {
  async open({ path: place, url }) {
    await page.goto(url ?? `${origin}${place}`, { waitUntil: 'load' });
    marks += 1;
    await page.evaluate((mark) => { window.mark = mark; }, marks);
  },
  async see({ place, text }) {
    try {
      await page.waitForFunction(
        ([place, text]) => document.querySelector(place)?.innerText.replace(/\s+/g, ' ').includes(text),
        [place, text],
        { timeout: WAIT_MS },
      );
    } catch {
      const shown = await page.locator(place).first().innerText().catch(() => 'no such place');
      throw new Error(`never saw ${JSON.stringify(text)} at ${place} of ${page.url()}; it says ${JSON.stringify(shown)}`);
    }
  },
  async 'same-page'() {
    const mark = await page.evaluate(() => window.mark);
    if (mark !== marks) throw new Error('the page was loaded anew');
  },
  async fill({ place, text }) {
    await page.fill(place, text);
  },
  async click({ place }) {
    await page.click(place);
  },
  async look({ name }) {
    const violations = [];
    for (const [size, viewport, colorScheme] of LOOKS) {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme });
      await page.evaluate(() => window.scrollTo(0, 0));
      await page.screenshot({ path: path.join(pictures, `${name}-${size}-${colorScheme}.png`), fullPage: true });
      await page.evaluate(axe);
      const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
      for (const violation of found.violations) {
        violations.push({
          look: `${size} ${colorScheme}`,
          id: violation.id,
          impact: violation.impact,
          nodes: violation.nodes.slice(0, 3).map((node) => `${node.html} ${node.failureSummary}`),
        });
      }
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      if (wider > 0) {
        const nodes = await page.evaluate(() => [...document.querySelectorAll('main *')]
          .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
          .slice(-3).map((one) => one.outerHTML.slice(0, 160)));
        violations.push({ look: `${size} ${colorScheme}`, id: 'wider-than-the-screen', nodes });
      }
    }
    await page.setViewportSize(LOOKS[0][1]);
    await page.emulateMedia({ colorScheme: 'light' });
    return { violations };
  },
  async offline({ away }) {
    await context.setOffline(away);
  },
  async shown({ place }) {
    await page.waitForSelector(place, { state: 'visible', timeout: WAIT_MS });
  },
  async gone({ place }) {
    await page.waitForSelector(place, { state: 'hidden', timeout: 40_000 });
  },
  // Everything that can be pressed can be reached with the Tab key, and shows where it is.
  async keyboard() {
    const wanted = await page.evaluate(() => [...document.querySelectorAll('a[href], button, input, select, textarea')].filter((one) => one.checkVisibility()).length);
    await page.evaluate(() => { document.activeElement?.blur(); window.scrollTo(0, 0); });
    const reached = new Set();
    for (let press = 0; press < wanted + 5; press += 1) {
      await page.keyboard.press('Tab');
      const at = await page.evaluate(() => {
        const one = document.activeElement;
        if (!one || one === document.body) return null;
        const style = getComputedStyle(one);
        const all = [...document.querySelectorAll('a[href], button, input, select, textarea')];
        return { place: all.indexOf(one), seen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2, html: one.outerHTML.slice(0, 80) };
      });
      if (!at) continue;
      if (!at.seen) throw new Error(`the focus cannot be seen at ${at.html}`);
      reached.add(at.place);
    }
    if (reached.size < wanted) throw new Error(`only ${reached.size} of ${wanted} can be reached with Tab`);
  },
  async end() {
    await browser.close();
    return { console: told };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  let answer;
  try {
    answer = { ok: true, ...(await orders[order.do](order)) };
  } catch (error) {
    answer = { error: String(error.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
  if (order.do === 'end') break;
}
process.exit(0);
