// Writes built/ from src/, or with `test` the tests into tested/. The same sources and lockfile produce the same bytes.
import { build } from "esbuild";
import { copyFile, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const GZIPPED_BYTES_MAX = 100_000;

const shared = { bundle: true, format: "esm", target: "es2022", jsx: "automatic", jsxImportSource: "preact", logLevel: "warning" };

async function tests() {
  await rm("tested", { recursive: true, force: true });
  const names = (await readdir("test")).map((name) => `test/${name}`);
  await build({ ...shared, entryPoints: names, outdir: "tested", platform: "node", outExtension: { ".js": ".test.mjs" } });
}

async function page() {
  await mkdir("built", { recursive: true });
  await build({ ...shared, entryPoints: { app: "src/main.tsx" }, outdir: "built", minify: true, legalComments: "none", charset: "ascii" });
  await build({ entryPoints: { app: "src/app.css" }, outdir: "built", minify: true, logLevel: "warning" });
  for (const name of ["index.html", "icon.svg"]) await copyFile(`src/${name}`, `built/${name}`);
  let bytes = 0;
  for (const name of await readdir("built")) bytes += gzipSync(await readFile(`built/${name}`)).length;
  console.log(`built: ${bytes} bytes gzipped`);
  if (GZIPPED_BYTES_MAX < bytes) throw new Error(`more than ${GZIPPED_BYTES_MAX} bytes gzipped`);
}

await (process.argv[2] === "test" ? tests() : page());
