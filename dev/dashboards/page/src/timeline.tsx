/**
 * States over time. Grafana's own state timeline is part of its server's code and not of its libraries: this draws the
 * same with Grafana's axes, colours and texts.
 */

import {
  FieldType,
  formattedValueToString,
  getFieldDisplayName,
  type DataFrame,
  type Field,
  type GrafanaTheme2,
  type TimeRange,
} from '@grafana/data';
import { AxisPlacement, ScaleDirection, ScaleOrientation } from '@grafana/schema';
import { UPlotChart, UPlotConfigBuilder, useTheme2 } from '@grafana/ui';
import { useMemo, type JSX } from 'react';
import uPlot from 'uplot';

import { TIME_ZONE } from './fields.ts';
import type { Drawing } from './panels.tsx';

interface Segment {
  /** Unix time, ms. */
  begin: number;
  end: number;
  color: string;
  text: string;
}

interface Row {
  name: string;
  segments: Segment[];
}

/** Share of a row that its boxes fill, where the panel does not say. */
const ROW_HEIGHT = 0.9;
/** Of the boxes: what Grafana's panel has where a dashboard says nothing. */
const FILL_OPACITY = 0.7;
/** CSS pixels left of the axis for names, at most. */
const NAMES_WIDTH = 260;

export function Timeline({ panel, frames, range, width, height }: Drawing): JSX.Element {
  const theme = useTheme2();
  const rows = useMemo(() => readRows(frames), [frames]);
  const filled = Number(panel.options?.rowHeight ?? ROW_HEIGHT);
  const config = useMemo(() => configure(rows, filled, range, theme), [rows, filled, range, theme]);
  const times = [range.from.valueOf(), range.to.valueOf()];
  return <UPlotChart config={config} data={[times, [null, null]]} width={width} height={height} />;
}

function readRows(frames: DataFrame[]): Row[] {
  return frames.flatMap((frame) => {
    const time = frame.fields.find((field) => field.type === FieldType.time);
    const value = frame.fields.find((field) => field.type === FieldType.number);
    return time && value ? [{ name: getFieldDisplayName(value, frame, frames), segments: merge(time, value) }] : [];
  });
}

/** Put equal neighbours into one box. */
function merge(time: Field, field: Field): Segment[] {
  const segments: Segment[] = [];
  let open: Segment | undefined;
  field.values.forEach((value: number | null, index: number) => {
    const at = time.values[index] as number;
    if (open) {
      open.end = at;
    }
    if (value === null) {
      open = undefined;
      return;
    }
    const shown = field.display!(value);
    const text = formattedValueToString(shown);
    if (open?.text !== text) {
      open = { begin: at, end: at, color: shown.color ?? 'gray', text };
      segments.push(open);
    }
  });
  return segments;
}

function configure(rows: Row[], filled: number, range: TimeRange, theme: GrafanaTheme2): UPlotConfigBuilder {
  const builder = new UPlotConfigBuilder(TIME_ZONE);
  builder.addScale({
    scaleKey: 'x',
    isTime: true,
    orientation: ScaleOrientation.Horizontal,
    direction: ScaleDirection.Right,
    range: () => [range.from.valueOf(), range.to.valueOf()],
  });
  builder.addScale({
    scaleKey: 'rows',
    orientation: ScaleOrientation.Vertical,
    direction: ScaleDirection.Down,
    range: () => [0, rows.length],
  });
  builder.addAxis({
    scaleKey: 'x', isTime: true, placement: AxisPlacement.Bottom, timeZone: TIME_ZONE, theme, grid: { show: false },
  });
  const longest = Math.max(...rows.map((row) => row.name.length));
  builder.addAxis({
    scaleKey: 'rows',
    placement: AxisPlacement.Left,
    splits: rows.map((_, index) => index + 0.5),
    values: rows.map((row) => row.name),
    // 7 pixels a letter at the size of an axis' text.
    size: Math.min(NAMES_WIDTH, 20 + longest * 7),
    grid: { show: false },
    ticks: { show: false },
    theme,
  });
  builder.addSeries({
    scaleKey: 'rows', pathBuilder: () => null, pxAlign: false, show: true, theme,
    dataFrameFieldIndex: { frameIndex: 0, fieldIndex: 1 },
  });
  builder.addHook('draw', (plot) => draw(plot, rows, filled, theme));
  return builder;
}

function draw(plot: uPlot, rows: Row[], filled: number, theme: GrafanaTheme2): void {
  const { ctx } = plot;
  const ratio = uPlot.pxRatio;
  ctx.save();
  ctx.font = `${12 * ratio}px ${theme.typography.fontFamily}`;
  ctx.textBaseline = 'middle';
  ctx.textAlign = 'left';
  rows.forEach((row, index) => {
    const top = plot.valToPos(index + (1 - filled) / 2, 'rows', true);
    const bottom = plot.valToPos(index + (1 + filled) / 2, 'rows', true);
    for (const segment of row.segments) {
      const left = plot.valToPos(segment.begin, 'x', true);
      const right = plot.valToPos(segment.end, 'x', true);
      ctx.globalAlpha = FILL_OPACITY;
      ctx.fillStyle = theme.visualization.getColorByName(segment.color);
      ctx.fillRect(left, top, Math.max(right - left, 1), bottom - top);
      ctx.globalAlpha = 1;
      if (right - left > ctx.measureText(segment.text).width + 8 * ratio) {
        ctx.fillStyle = theme.colors.text.primary;
        ctx.fillText(segment.text, left + 4 * ratio, (top + bottom) / 2);
      }
    }
  });
  ctx.restore();
}
