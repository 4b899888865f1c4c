// Start.
const HOW = "Means with 95 % bootstrap intervals in brackets; images of one prompt are resampled together.";
const build = {
  overview: buildOverview,
  images: buildImages,
  generators: () => {
    if (data.generators.length) summaryTable("generator", data.generators, HOW);
    for (const { column, lines } of data.by) summaryTable(column, lines, HOW, byId("generators"));
  },
  prompts: () => summaryTable("prompt", data.prompts,
    "Means with 95 % bootstrap intervals over the prompt's images in brackets: they cover other images of the same prompt."),
  failed: failedTable,
};
const models = data.extra.model ? [...new Set(data.extra.model.filter(Boolean))] : [];
byId("summary").textContent = count(data.rows, "image") + (data.folder ? ` in ${data.folder}` : "") +
  (failures ? `, ${failures === data.rows ? "all" : `${failures.toLocaleString("en")} of them`} failed` : "") + (models.length ? `; scored by ${models.join(", ")}` : "");
buildTabs();
buildViewer();
showTab(location.hash.slice(2));
