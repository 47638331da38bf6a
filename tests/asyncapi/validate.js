const { Parser } = require("@asyncapi/parser");
const fs = require("fs");
(async () => {
  let failed = false;
  for (const path of process.argv.slice(2)) {
    const { document, diagnostics } = await new Parser().parse(fs.readFileSync(path, "utf8"));
    for (const each of diagnostics) {
      console.log(`${path} ${each.severity} ${each.code} ${each.path.join("/")} ${each.message}`);
    }
    failed = failed || document === undefined || diagnostics.some((each) => each.severity === 0);
  }
  process.exit(failed ? 1 : 0);
})();
