/** Variables of a dashboard, and the ones that Grafana has built in. */

import { rangeUtil, type TimeRange } from '@grafana/data';
import type { VariableModel } from '@grafana/schema';

import { labelValues } from './prometheus.ts';
import type { DrawingRequest } from './request.ts';

export interface Chosen {
  name: string;
  label: string;
  /** What is put into expressions. */
  value: string;
  /** What the choice above the dashboard shows. */
  text: string;
}

/** `label_values(metric, label)` or `label_values(label)`. */
const LABEL_VALUES = /^label_values\((?:(.+),\s*)?([a-zA-Z_]\w*)\)$/;

/** Times that a rate must span at least, in scrapes: Grafana's choice for `$__rate_interval`. */
const SCRAPES_OF_A_RATE = 4;

/** Put values in the place of `$name`, `${name}` and `[[name]]`. */
export function fill(text: string, values: ReadonlyMap<string, string>): string {
  return text.replace(/\$(\w+)|\$\{(\w+)(?::\w+)?\}|\[\[(\w+)\]\]/g, (whole, ...names: (string | undefined)[]) => {
    const name = names.slice(0, 3).find((item) => item !== undefined);
    return (name !== undefined ? values.get(name) : undefined) ?? whole;
  });
}

/** Choose a value for each variable that asks Prometheus; each may use those before it. */
export async function chooseVariables(request: DrawingRequest): Promise<Chosen[]> {
  const chosen: Chosen[] = [];
  for (const variable of request.dashboard.templating?.list ?? []) {
    if (variable.type !== 'query') {
      continue;
    }
    const wanted = request.variables[variable.name];
    const choices = await readChoices(request, variable, new Map(chosen.map((item) => [item.name, item.value])));
    chosen.push(choose(variable, choices, wanted));
  }
  return chosen;
}

async function readChoices(
  request: DrawingRequest,
  variable: VariableModel,
  values: ReadonlyMap<string, string>,
): Promise<string[]> {
  const query = typeof variable.query === 'string' ? variable.query : String(variable.query?.['query']);
  const match = LABEL_VALUES.exec(fill(query, values));
  if (match === null) {
    throw new Error(`variable ${variable.name}: only label_values() can be asked, not ${query}`);
  }
  // `sort: 1` is alphabetical, ascending; the other ways are not used.
  return (await labelValues(request, match[2]!, match[1])).sort();
}

function choose(variable: VariableModel, choices: string[], wanted: string | undefined): Chosen {
  const { name } = variable;
  const label = variable.label ?? name;
  if (wanted !== undefined) {
    if (!choices.includes(wanted)) {
      throw new Error(`variable ${name} cannot be ${wanted}: there is ${choices.join(', ') || 'nothing'}`);
    }
    return { name, label, value: wanted, text: wanted };
  }
  if (variable.includeAll) {
    return { name, label, value: variable.allValue ?? `(${choices.join('|')})`, text: 'All' };
  }
  const first = choices[0];
  if (first === undefined) {
    throw new Error(`variable ${name} has no values`);
  }
  return { name, label, value: first, text: first };
}

/**
 * Return the step of a range query in seconds: one point a pixel at most, none between two scrapes, and none closer than
 * the query asks for (`1m`).
 */
export function stepOf(range: TimeRange, width: number, scrapeInterval: number, least?: string): number {
  return rangeUtil.calculateInterval(range, Math.floor(width), least || `${scrapeInterval}s`).intervalMs / 1000;
}

/** Return `$__interval`, `$__rate_interval` and `$__range`. */
export function timeVariables(request: DrawingRequest, step: number, least?: string): Map<string, string> {
  const scrape = least ? rangeUtil.intervalToSeconds(least) : request.scrapeInterval;
  return new Map([
    ['__interval', `${step}s`],
    ['__rate_interval', `${Math.max(step + scrape, SCRAPES_OF_A_RATE * scrape)}s`],
    ['__range', `${Math.round(request.to - request.from)}s`],
  ]);
}
