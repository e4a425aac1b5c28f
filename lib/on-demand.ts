/** Modules that are large and that most sidecars never use: each is loaded by whoever first asks for it. */
import { createRequire } from 'node:module';
import type * as Http from 'node:http';
import type * as Re2 from 're2js';
import type * as Yaml from 'yaml';

const require = createRequire(import.meta.url);

/** Only for text that is not JSON. */
export function yaml(): typeof Yaml {
  return require('yaml') as typeof Yaml;
}

/** Only for configuration with regular expressions in it. */
export function re2(): typeof Re2 {
  return require('re2js') as typeof Re2;
}

/** `import 'node:http'` reads every export of the module, and one of them loads the browser's fetch with 14 MiB; `require` reads none. */
export function http(): typeof Http {
  return require('node:http') as typeof Http;
}
