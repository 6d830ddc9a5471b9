'use strict';
(() => {
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const print = matchMedia('print');
  const root = document.documentElement;

  const make = (tag, attributes, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // --- tables: sorted by a click on a header, searched where they are long ---------------------

  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.textContent.trim();
    const value = Number(cell.dataset.value ?? (/^[−-]?[\d.,]+%?$/.test(text) ? text.replace('−', '-').replace(/[,%]/g, '') : NaN));
    return { text, value: text === '–' ? NaN : value, none: text === '–' || text === '' };
  };

  const before = (x, y) => {
    const one = !Number.isNaN(x.value), other = !Number.isNaN(y.value);
    if (one && other) return x.value - y.value;
    return one - other ? other - one : x.text.localeCompare(y.text, 'en', { numeric: true });
  };

  const sort = (table, heads, column) => {
    const head = heads[column];
    const down = head.getAttribute('aria-sort') === 'ascending';
    heads.forEach((other) => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, key: key(row, column) }));
    rows.sort((x, y) => x.key.none - y.key.none || before(x.key, y.key) * (down ? -1 : 1));
    body.append(...rows.map(({ row }) => row));
  };

  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.textContent) return;
      const button = make('button', { type: 'button' }, head.textContent);
      button.addEventListener('click', () => sort(table, heads, column));
      head.replaceChildren(button);
    });
  };

  const searchable = (table) => {
    const rows = [...table.tBodies[0].rows];
    const input = make('input', { type: 'search', placeholder: 'Search', 'aria-label': 'Search this table' });
    const count = make('span', { role: 'status' }, `${rows.length} rows`);
    input.addEventListener('input', () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      count.textContent = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
    });
    table.parentElement.before(make('div', { class: 'controls' }, input, count));
  };

  const upgrade = (table) => {
    if (!table.tHead || !table.tBodies.length) return;
    sortable(table);
    if (table.classList.contains('long') && !table.closest('figure')) searchable(table);
  };

  document.querySelectorAll('main table').forEach(upgrade);

  // --- charts -----------------------------------------------------------------------------------

  const number = (value) => (value === null || value === undefined ? '–' : String(Number(value.toPrecision(4))).replace('-', '−'));
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const colours = (name) => colour(name).split(',').map((one) => one.trim());
  const short = (text, most) => (text.length > most ? `${text.slice(0, most / 2)}…${text.slice(-most / 2)}` : text);

  const shared = () => ({
    animation: false,
    aria: { enabled: true },
    textStyle: { fontFamily: colour('sans').split(',').pop().trim(), color: colour('ink') },
    tooltip: {
      renderMode: 'richText', confine: true, backgroundColor: colour('paper'), borderColor: colour('rule'),
      textStyle: { color: colour('ink'), fontSize: 12 },
    },
  });

  const axis = (extra) => ({
    axisLine: { lineStyle: { color: colour('rule') } },
    axisTick: { show: false },
    axisLabel: { color: colour('soft'), fontSize: 11, hideOverlap: true },
    nameTextStyle: { color: colour('soft'), fontSize: 11 },
    splitLine: { lineStyle: { color: colour('rule') } },
    ...extra,
  });

  const heat = (data, view, width) => {
    const cells = view.rows.flatMap(([, values], y) => values.map((value, x) => [x, y, value])).filter((cell) => cell[2] !== null);
    const top = Math.max(0, ...cells.map((cell) => cell[2]));
    const range = [...(data.range ?? [0, top || 1])].sort((x, y) => x - y);
    const stops = colours(range.length === 3 ? 'split' : 'heat');
    if (data.range && data.range[0] > data.range[1]) stops.reverse();
    const strength = (z) => (range.length === 3 ? 2 * Math.abs((z - range[0]) / (range[2] - range[0]) - 0.5) : z / range[1]);
    const names = view.rows.map(([name]) => name);
    const most = width < 560 ? 14 : 34;
    const left = Math.min(most, Math.max(...names.map((name) => name.length))) * 6.6 + 16;
    const room = (width - left - 20) / data.columns.length;
    const label = axis({ axisLine: { show: false }, splitLine: { show: false } });
    const across = { ...label.axisLabel, formatter: (name) => short(name, room > 70 ? 12 : 8), rotate: room < 46 && !data.across ? 40 : 0 };
    return {
      ...shared(),
      grid: { left, right: 16, top: 6, bottom: (across.rotate ? 62 : 42) + 34 },
      xAxis: { ...label, type: 'category', data: data.columns, name: data.across, nameLocation: 'middle', nameGap: 26, axisLabel: across },
      yAxis: { ...label, type: 'category', data: names, inverse: true, axisLabel: { ...label.axisLabel, formatter: (name) => short(name, most) } },
      visualMap: {
        min: range[0], max: range.at(-1), dimension: 2, calculable: false, orient: 'horizontal', left: 'center', bottom: 0, itemWidth: 10,
        itemHeight: Math.min(180, width / 3), text: [number(range.at(-1)), number(range[0])], precision: 3, hoverLink: false,
        textStyle: { color: colour('soft'), fontSize: 11 }, inRange: { color: stops },
      },
      tooltip: {
        ...shared().tooltip,
        formatter: ({ value: [x, y, z] }) => `${short(names[y], 60)}\n${data.across} ${short(data.columns[x], 60)}\n${data.unit} ${number(z)}`.trim(),
      },
      series: [{
        type: 'heatmap', data: cells.map((value) => ({ value, label: { color: colour(strength(value[2]) > 0.66 ? 'on' : 'ink') } })), itemStyle: { borderWidth: 2, borderColor: colour('paper'), borderRadius: 3 },
        label: { show: room > 40, fontSize: 11, formatter: ({ value }) => number(Number(value[2].toPrecision(3))) },
        emphasis: { itemStyle: { borderColor: colour('ink') } },
      }],
    };
  };

  const lines = (data, view, mixed = view.rows.some(([name]) => name.startsWith('→'))) => ({
    ...shared(),
    color: ['s0', 's1', 's2', 's3', 's4', 's5'].map(colour),
    grid: { left: 8, right: 16, top: data.unit ? 56 : 34, bottom: 26, containLabel: true },
    legend: { type: 'scroll', top: 0, left: 0, itemWidth: 18, textStyle: { color: colour('ink'), fontSize: 11 }, pageIconColor: colour('accent'),
      pageIconInactiveColor: colour('rule'), pageTextStyle: { color: colour('soft') }, inactiveColor: colour('soft'), formatter: (name) => short(name, 28) },
    xAxis: axis({ type: 'category', data: data.columns, name: data.across, nameLocation: 'middle', nameGap: 24, boundaryGap: false, splitLine: { show: false } }),
    yAxis: axis({ type: data.log ? 'log' : 'value', name: data.unit, axisLine: { show: false }, nameTextStyle: { color: colour('soft'), fontSize: 11, align: 'left' },
      nameLocation: 'end', axisLabel: { color: colour('soft'), fontSize: 11, formatter: number } }),
    tooltip: {
      ...shared().tooltip, trigger: 'axis',
      formatter: (points) => [`${data.across} ${points[0].name}`, ...points.filter((p) => typeof p.value === 'number').slice(0, 16)
        .map((p) => `${short(p.seriesName, 40)}  ${number(p.value)}`)].join('\n'),
    },
    series: view.rows.map(([name, values], i) => ({
      type: 'line', name, data: values, symbol: ['circle', 'rect', 'triangle', 'diamond'][i % 4], symbolSize: 5, showSymbol: data.columns.length < 40,
      lineStyle: { width: 2, type: !mixed || name.startsWith('→') ? 'solid' : [5, 3] },
    })),
  });

  const numbers = (figure, data, view) => {
    const down = data.kind === 'lines';
    const heads = down ? [data.across, ...view.rows.map(([name]) => name)] : ['', ...data.columns];
    const rows = down ? data.columns.map((name, i) => [name, ...view.rows.map(([, values]) => values[i])]) : view.rows.map(([name, values]) => [name, ...values]);
    const cell = (value, i) => (typeof value === 'number' ? make('td', { class: 'number', 'data-value': value }, number(value))
      : make('td', i || down ? { class: 'number' } : {}, value ?? '–'));
    const table = make('table', {},
      make('thead', {}, make('tr', {}, ...heads.map((name, i) => make('th', i || down ? { scope: 'col', class: 'number' } : { scope: 'col' }, name)))),
      make('tbody', {}, ...rows.map((row) => make('tr', {}, ...row.map(cell)))));
    figure.querySelector('table').replaceWith(table);
    sortable(table);
  };

  const charts = [...document.querySelectorAll('figure.chart')].map((figure) => {
    const data = JSON.parse(figure.querySelector('script').textContent);
    const plot = figure.querySelector('.plot');
    let view = data.views[0];
    const height = () => (data.kind === 'heat' ? Math.max(2, view.rows.length) * 32 + 96 : 300);
    plot.style.height = `${height()}px`;
    const drawn = echarts.init(plot, null, { renderer: 'canvas' });
    const draw = () => {
      plot.style.height = `${height()}px`;
      drawn.resize();
      drawn.setOption(data.kind === 'heat' ? heat(data, view, plot.clientWidth) : lines(data, view), true);
    };
    if (data.views.length > 1) {
      const select = make('select', {}, ...data.views.map((one, i) => make('option', { value: i }, short(one.name, 64))));
      select.addEventListener('change', () => {
        view = data.views[Number(select.value)];
        draw();
        numbers(figure, data, view);
      });
      plot.before(make('div', { class: 'controls' }, make('label', {}, data.choice, select)));
    }
    draw();
    return draw;
  });

  const redraw = () => charts.forEach((draw) => draw());
  let pending = 0;
  addEventListener('resize', () => { cancelAnimationFrame(pending); pending = requestAnimationFrame(redraw); });
  dark.addEventListener('change', redraw);
  print.addEventListener('change', redraw);
})();
