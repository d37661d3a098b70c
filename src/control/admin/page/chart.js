// Lines over time, drawn as SVG. Takes points, keeps none; knows nothing of what they mean.

import { KEPT } from './history.js';
import { copyOf, put, clock } from './words.js';

const HEIGHT = 116;
const LEFT = 64;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 20;
// Seconds shown: the first of these that holds all points.
const SPANS = [60, 120, KEPT];
const TICKS = 2;
// Seconds that an arrow key moves.
const STEP = 5;

function svg(name, attributes, parent) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  parent?.append(node);
  return node;
}

// The smallest of 1, 2, 5, 10, 20... that is not less.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * (1 - 1e-9));
}

// How many seconds are shown: no more than needed, so that the first minute is no dot at the edge.
export const spanOf = (points) => SPANS.find((span) => span >= points.at(-1).time - points[0].time) ?? KEPT;

// The path of a line with holes where a point has no value.
export function line(points, key, x, y) {
  let path = '';
  let drawing = false;
  for (const point of points) {
    const value = point[key];
    if (value === null || value === undefined) {
      drawing = false;
      continue;
    }
    path += `${drawing ? 'L' : 'M'}${x(point.time).toFixed(1)} ${y(value).toFixed(1)}`;
    drawing = true;
  }
  return path;
}

export class Chart {
  // `series`: [{ key, label }] of one or two lines; `format` writes a value; `least` is the least end of the scale.
  constructor({ title, series, format, least }) {
    Object.assign(this, { title, series, format, least });
    this.figure = copyOf('chart');
    const find = (name) => this.figure.querySelector(name);
    put(find('.title'), title);
    this.at = find('.at');
    this.legend = series.map(({ label }, index) => {
      const entry = document.createElement('span');
      entry.className = `entry s${index + 1}`;
      const value = document.createElement('b');
      entry.append(...(label ? [`${label} `] : []), value);
      find('.legend').append(entry);
      return value;
    });
    this.root = svg('svg', { role: 'img', height: HEIGHT }, this.figure);
    this.grid = svg('g', { class: 'grid', 'aria-hidden': 'true' }, this.root);
    this.area = svg('path', { class: 'area s1' }, this.root);
    this.lines = series.map((_, index) => svg('path', { class: `line s${index + 1}` }, this.root));
    this.mark = svg('line', { class: 'mark', y1: TOP, y2: HEIGHT - BOTTOM }, this.root);
    this.empty = svg('text', { class: 'empty', y: HEIGHT / 2, 'text-anchor': 'middle' }, this.root);
    this.width = 0;
    this.points = [];
    this.marked = null;
    // A page with several charts marks the same moment in all of them.
    this.onMark = () => {};
    new ResizeObserver(([entry]) => {
      this.width = entry.contentRect.width;
      this.draw(this.points);
    }).observe(this.root);
    this.#listen();
  }

  #listen() {
    const move = (event) => {
      const inside = event.clientX - this.root.getBoundingClientRect().left - LEFT;
      this.onMark(this.end - this.span * (1 - inside / this.room));
    };
    this.root.addEventListener('pointermove', move);
    this.root.addEventListener('pointerdown', move);
    this.root.addEventListener('pointerleave', () => this.onMark(null));
    this.figure.addEventListener('blur', () => this.onMark(null));
    this.figure.addEventListener('keydown', (event) => {
      const step = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key];
      if (step) this.onMark((this.marked ?? this.end) + step);
      else if (event.key === 'Escape') this.onMark(null);
      else return;
      event.preventDefault();
    });
  }

  draw(points) {
    this.points = points;
    if (this.width === 0 || points.length === 0) return;
    this.end = points.at(-1).time;
    this.span = spanOf(points);
    this.room = this.width - LEFT - RIGHT;
    const values = points.flatMap((point) => this.series.map(({ key }) => point[key] ?? 0));
    this.top = roundUp(Math.max(this.least, ...values));
    const bottom = HEIGHT - BOTTOM;
    this.x = (time) => LEFT + this.room * (1 - (this.end - time) / this.span);
    const y = (value) => bottom - (bottom - TOP) * (value / this.top);
    this.#drawGrid(y);
    const paths = this.series.map(({ key }) => line(points, key, this.x, y));
    this.lines.forEach((node, index) => node.setAttribute('d', paths[index]));
    this.area.setAttribute('d', areaUnder(paths[0], bottom));
    const has = paths.some((path) => path !== '');
    this.empty.setAttribute('x', LEFT + this.room / 2);
    put(this.empty, has ? '' : 'nothing measured');
    this.#tell();
  }

  #drawGrid(y) {
    const now = `${this.width} ${this.top} ${this.span}`;
    if (now === this.drawn) return;
    this.drawn = now;
    this.grid.replaceChildren();
    for (let tick = 0; tick <= TICKS; tick += 1) {
      const value = (this.top * tick) / TICKS;
      svg('line', { x1: LEFT, x2: LEFT + this.room, y1: y(value), y2: y(value) }, this.grid);
      const label = svg('text', { x: LEFT - 8, y: y(value) + 4, 'text-anchor': 'end' }, this.grid);
      label.textContent = this.format(value).replace(/\.0(?=[ /])/, '');
    }
    const minutes = this.span / 60;
    const [steps, unit] = minutes === 1 ? [[60, 30], 's'] : [[minutes, minutes === 2 ? 1 : 3], 'min'];
    for (const ago of steps) {
      const part = ago / (unit === 's' ? this.span : minutes);
      const anchor = part === 1 ? 'start' : 'middle';
      const x = LEFT + this.room * (1 - part);
      svg('text', { x, y: HEIGHT - 5, 'text-anchor': anchor }, this.grid).textContent = `−${ago} ${unit}`;
    }
    svg('text', { x: LEFT + this.room, y: HEIGHT - 5, 'text-anchor': 'end' }, this.grid).textContent = 'now';
  }

  // Shows what was at that time; null: what is now.
  markAt(time) {
    this.marked = time === null ? null : Math.min(this.end, Math.max(this.points[0]?.time ?? 0, time));
    if (this.points.length > 0) this.#tell();
  }

  #tell() {
    const near = (best, point) =>
      Math.abs(point.time - this.marked) < Math.abs(best.time - this.marked) ? point : best;
    const point = this.marked === null ? this.points.at(-1) : this.points.reduce(near);
    this.root.classList.toggle('marked', this.marked !== null);
    this.mark.setAttribute('x1', this.x(point.time));
    this.mark.setAttribute('x2', this.x(point.time));
    put(this.at, this.marked === null ? '' : clock(point.time * 1000));
    const words = this.series.map(({ key, label }, index) => {
      const value = this.format(point[key] ?? null);
      put(this.legend[index], value);
      return `${label} ${value}`.trim();
    });
    this.root.setAttribute('aria-label', `${this.title}: ${words.join(', ')}. Arrow keys go back in time.`);
  }
}

// A shape for each piece of a line.
function areaUnder(path, bottom) {
  const pieces = path.split('M').filter(Boolean);
  return pieces
    .map((piece) => {
      const xs = piece.split('L').map((place) => place.split(' ')[0]);
      return `M${xs[0]} ${bottom}L${piece}L${xs.at(-1)} ${bottom}Z`;
    })
    .join('');
}
