const dark = matchMedia("(prefers-color-scheme: dark)");

async function draw() {
  for (const place of document.querySelectorAll("[data-plot]")) {
    const theme = dark.matches ? themes.dark : themes.light;
    const narrow = place.clientWidth < 480;
    const config = narrow
      ? {...theme, legend: {...theme.legend, columns: 2}, axis: {...theme.axis, titleFontSize: 11}}
      : theme;
    await vegaEmbed(place, specs[place.dataset.plot], {
      config,
      renderer: "svg",
      // The page forbids itself to compile code: expressions are interpreted.
      ast: true,
      tooltip: {theme: dark.matches ? "dark" : "light"},
      actions: {export: true, source: false, compiled: false, editor: false},
    });
  }
}

dark.addEventListener("change", draw);
draw();

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);  // a page that was opened from a file may not copy
    }
  });
}
