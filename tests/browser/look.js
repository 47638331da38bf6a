// Looks at the pages of a catalogue as somebody does who looks for an event: node look.js <chromium> <folder> <shots>
// Prints what it saw as JSON. Anything that a page loads, logs or pops up is told.
"use strict";
const path = require("node:path");
const { pathToFileURL } = require("node:url");
const { chromium } = require("playwright-core");

const [program, folder, shots] = process.argv.slice(2);
const QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

async function shown(page) {
  return page.locator("tbody tr:visible td:first-child").allInnerTexts();
}

async function search(page, words) {
  await page.fill("#search", words);
  return shown(page);
}

async function look() {
  const browser = await chromium.launch({
    executablePath: program,
    args: process.getuid() === 0 ? ["--no-sandbox", ...QUIET] : QUIET,
  });
  const seen = { requests: [], told: [], dialogs: [], searches: {}, pages: {} };
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
  page.on("request", (request) => request.url().startsWith("file:") || seen.requests.push(request.url()));
  page.on("console", (message) => seen.told.push(message.text()));
  page.on("pageerror", (error) => seen.told.push(String(error)));
  page.on("dialog", (dialog) => { seen.dialogs.push(dialog.message()); dialog.dismiss(); });
  const address = (name) => pathToFileURL(path.join(folder, name)).href;
  const tasks = JSON.parse(process.env.LOOK_FOR);

  await page.goto(address("index.html"));
  // The browser focuses with the first picture of a page, which may come after the page is loaded.
  // Where it never does, the test sees that nothing has it.
  await page.waitForFunction(() => document.activeElement !== document.body, null, { timeout: 10000 }).catch(() => {});
  seen.focused = await page.evaluate(() => document.activeElement.id);
  seen.rows = (await shown(page)).length;
  await page.screenshot({ path: path.join(shots, "index.png") });
  for (const words of tasks.searches) {
    const started = Date.now();
    seen.searches[words] = await search(page, words);
    seen.slowest_ms = Math.max(seen.slowest_ms || 0, Date.now() - started);
  }
  await page.screenshot({ path: path.join(shots, "search.png") });
  for (const name of tasks.pages) {
    await page.goto(address("index.html"));
    await page.click(`a[href="${name}"]`);
    seen.pages[name] = await page.evaluate(() => ({
      text: document.body.innerText,
      flags: [...document.querySelectorAll(".pii")].map((each) => each.innerText),
      red: [...document.querySelectorAll(".pii")].every((each) => getComputedStyle(each).backgroundColor !== "rgba(0, 0, 0, 0)"),
      scripts: document.scripts.length,
      images: document.images.length,
      wider: document.documentElement.scrollWidth > document.documentElement.clientWidth,
    }));
    await page.screenshot({ path: path.join(shots, `${name}.png`), fullPage: true });
  }
  await page.setViewportSize({ width: 400, height: 800 });
  seen.narrow = await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth);
  await page.screenshot({ path: path.join(shots, "narrow.png") });
  await browser.close();
  console.log(JSON.stringify(seen));
}

look().catch((error) => { console.error(error); process.exit(1); });
