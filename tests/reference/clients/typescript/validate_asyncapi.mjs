// Prints the problems that AsyncAPI's own parser finds in documents: node validate_asyncapi.mjs <file>...
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const WARNING = 1; // 0 is an error; 2 and 3 are advice, such as to use a newer version of the specification.
const parser = new Parser();
for (const file of process.argv.slice(2)) {
  for (const { severity, path, message } of await parser.validate(readFileSync(file, "utf8"))) {
    if (severity <= WARNING) console.log(`${file}: ${path.join("/")}: ${message}`);
  }
}
