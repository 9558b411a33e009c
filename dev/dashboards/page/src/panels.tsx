/** The kinds of panels, drawn with Grafana's components as Grafana's panels use them. */

import {
  FieldType,
  getDisplayProcessor,
  getDisplayValueAlignmentFactors,
  getFieldDisplayName,
  getFieldDisplayValues,
  VizOrientation,
  type DataFrame,
  type FieldDisplay,
  type GrafanaTheme2,
  type ReduceDataOptions,
  type TimeRange,
} from '@grafana/data';
import { BarGaugeDisplayMode, BarGaugeNamePlacement, BarGaugeValueMode, type Panel } from '@grafana/schema';
import {
  BarGauge,
  BigValue,
  BigValueColorMode,
  BigValueGraphMode,
  BigValueTextMode,
  TimeSeries,
  useTheme2,
  VizRepeater,
} from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import type { JSX } from 'react';

import { fieldConfigOf, TIME_ZONE } from './fields.ts';
import { Timeline } from './timeline.tsx';

export interface Drawing {
  panel: Panel;
  frames: DataFrame[];
  range: TimeRange;
  width: number;
  height: number;
}

/** Pixels between bars. */
const BAR_SPACING = 10;

export function Visualization(drawing: Drawing): JSX.Element {
  const { panel, frames, range, width, height } = drawing;
  // Each kind has its own options, and the tests check the dashboards against Grafana's types of them.
  const options = (panel.options ?? {}) as Record<string, any>;
  switch (panel.type) {
    case 'timeseries':
      return (
        <TimeSeries
          frames={frames}
          structureRev={1}
          timeRange={range}
          timeZone={TIME_ZONE}
          width={width}
          height={height}
          legend={{ showLegend: true, ...options.legend }}
        />
      );
    case 'stat':
      return <Stat {...drawing} />;
    case 'bargauge':
      return <Bars {...drawing} />;
    case 'table':
      return <TableNG data={frames[0]!} width={width} height={height} cellHeight={options.cellHeight} />;
    case 'state-timeline':
      return <Timeline {...drawing} />;
    default:
      throw new Error(`panels of type ${panel.type} cannot be drawn`);
  }
}

/** Return the numbers that a stat or bar gauge panel shows. */
export function displayed(panel: Panel, frames: DataFrame[], theme: GrafanaTheme2): FieldDisplay[] {
  return getFieldDisplayValues({
    data: frames,
    fieldConfig: fieldConfigOf(panel),
    reduceOptions: panel.options?.['reduceOptions'] as ReduceDataOptions,
    replaceVariables: (text: string) => text,
    theme,
    timeZone: TIME_ZONE,
  });
}

/** Return the names of the series, as a legend has them. */
export function seriesNames(frames: DataFrame[]): string[] {
  return frames.flatMap((frame) =>
    frame.fields
      .filter((field) => field.type === FieldType.number)
      .map((field) => getFieldDisplayName(field, frame, frames)),
  );
}

function Stat({ panel, frames, width, height }: Drawing): JSX.Element {
  const theme = useTheme2();
  const { colorMode, graphMode, textMode } = (panel.options ?? {}) as Record<string, string>;
  return (
    <VizRepeater
      getValues={() => displayed(panel, frames, theme)}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, width, height, alignmentFactors, count }) => (
        <BigValue
          value={value.display}
          count={count}
          alignmentFactors={alignmentFactors}
          colorMode={colorMode as BigValueColorMode}
          graphMode={graphMode as BigValueGraphMode}
          textMode={textMode as BigValueTextMode}
          width={width}
          height={height}
          theme={theme}
        />
      )}
      source={frames}
      renderCounter={0}
      orientation={VizOrientation.Auto}
      autoGrid
      width={width}
      height={height}
    />
  );
}

function Bars({ panel, frames, width, height }: Drawing): JSX.Element {
  const theme = useTheme2();
  const { displayMode, orientation } = (panel.options ?? {}) as Record<string, string>;
  return (
    <VizRepeater
      getValues={() => displayed(panel, frames, theme)}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, width, height, orientation, alignmentFactors, count }) => (
        <BarGauge
          value={value.display}
          field={value.field}
          display={getDisplayProcessor({ field: { config: value.field }, theme, timeZone: TIME_ZONE })}
          orientation={orientation}
          displayMode={displayMode as BarGaugeDisplayMode}
          valueDisplayMode={BarGaugeValueMode.Color}
          namePlacement={BarGaugeNamePlacement.Auto}
          alignmentFactors={count > 1 ? alignmentFactors : undefined}
          showUnfilled
          width={width}
          height={height}
          theme={theme}
        />
      )}
      source={frames}
      renderCounter={0}
      itemSpacing={BAR_SPACING}
      minVizWidth={8}
      minVizHeight={16}
      maxVizHeight={300}
      orientation={orientation as VizOrientation}
      width={width}
      height={height}
    />
  );
}
