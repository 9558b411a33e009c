/** Prometheus' HTTP API, and its answers as Grafana's data frames. */

import { createDataFrame, FieldType, type DataFrame, type Labels } from '@grafana/data';

import type { DrawingRequest } from './request.ts';

/** A query of a panel, as the dashboards have it. */
export interface Target {
  refId: string;
  expr: string;
  legendFormat: string;
  instant: boolean;
  /** Least step of a range query, such as `1m`. */
  interval?: string;
  format: 'time_series' | 'table';
}

interface Series {
  metric: Labels;
  /** Of an instant query. */
  value?: [number, string];
  /** Of a range query. */
  values?: [number, string][];
}

async function ask<T>(request: DrawingRequest, path: string, parameters: Record<string, string>): Promise<T> {
  const reply = await fetch(`${request.prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const answer = (await reply.json()) as { status: string; error?: string; data: T };
  if (answer.status !== 'success') {
    throw new Error(answer.error ?? `Prometheus answers ${reply.status}`);
  }
  return answer.data;
}

/** Return the values of a label, of the series that a selector finds or of all. */
export function labelValues(request: DrawingRequest, label: string, selector?: string): Promise<string[]> {
  const parameters = { start: String(request.from), end: String(request.to) };
  return ask(request, `label/${label}/values`, selector ? { ...parameters, 'match[]': selector } : parameters);
}

/** Run one query, whose expression has no variables any more, and return its frames. `step` is in seconds. */
export async function query(request: DrawingRequest, target: Target, step: number): Promise<DataFrame[]> {
  if (target.instant) {
    const parameters = { query: target.expr, time: String(request.to) };
    const found = await ask<{ result: Series[] }>(request, 'query', parameters);
    const rows = found.result.map((item) => ({ labels: item.metric, points: item.value ? [item.value] : [] }));
    return target.format === 'table' ? tableFrame(target, rows) : rows.map((row) => seriesFrame(target, row));
  }
  // Grafana puts the points on multiples of the step, so that they stay where they are when the range moves.
  const [start, end] = [request.from, request.to].map((time) => Math.floor(time / step) * step) as [number, number];
  const parameters = { query: target.expr, start: String(start), end: String(end), step: String(step) };
  const found = await ask<{ result: Series[] }>(request, 'query_range', parameters);
  const times = Array.from({ length: Math.round((end - start) / step) + 1 }, (_, index) => start + index * step);
  return found.result.map((item) => seriesFrame(target, { labels: item.metric, points: spread(times, item.values ?? []) }));
}

/** Return a point for each time: where the series has none there is a gap, which Grafana does not draw a line over. */
function spread(times: number[], points: [number, string][]): [number, string][] {
  const known = new Map(points.map(([time, text]) => [Math.round(time * 1000), text]));
  return times.map((time) => [time, known.get(Math.round(time * 1000)) ?? 'NaN']);
}

interface Row {
  labels: Labels;
  points: [number, string][];
}

/** Prometheus writes numbers as text; one that is none ("NaN") is a gap. */
function numberOf(text: string): number | null {
  const value = Number(text.replace('Inf', 'Infinity'));
  return Number.isNaN(value) ? null : value;
}

function seriesFrame(target: Target, row: Row): DataFrame {
  const name = legend(target, row.labels);
  return createDataFrame({
    refId: target.refId,
    fields: [
      {
        name: 'Time',
        type: FieldType.time,
        values: row.points.map(([time]) => time * 1000),
      },
      {
        name: 'Value',
        type: FieldType.number,
        values: row.points.map(([, text]) => numberOf(text)),
        labels: row.labels,
        config: name === undefined ? {} : { displayNameFromDS: name },
      },
    ],
  });
}

/** Return one frame with a row for each series, and a column for each label. */
function tableFrame(target: Target, rows: Row[]): DataFrame[] {
  if (rows.length === 0) {
    return [];
  }
  const names = [...new Set(rows.flatMap((row) => Object.keys(row.labels)))].sort();
  return [
    createDataFrame({
      refId: target.refId,
      fields: [
        { name: 'Time', type: FieldType.time, values: rows.map((row) => row.points[0]![0] * 1000) },
        ...names.map((name) => ({
          name,
          type: FieldType.string,
          values: rows.map((row) => row.labels[name] ?? ''),
          config: { filterable: true },
        })),
        { name: 'Value', type: FieldType.number, values: rows.map((row) => numberOf(row.points[0]![1])) },
      ],
    }),
  ];
}

/** Return a series' name; undefined where Grafana makes it from the labels. */
function legend(target: Target, labels: Labels): string | undefined {
  if (target.legendFormat === '__auto') {
    return Object.keys(labels).length > 0 ? undefined : target.expr;
  }
  return target.legendFormat.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label: string) => labels[label] ?? '');
}
