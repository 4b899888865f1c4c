// Start.
const HOW = "Means with 95 % bootstrap intervals in brackets; pictures of one prompt are resampled together.";
const build = {
  overview: buildOverview,
  pictures: buildPictures,
  generators: () => summaryTable("generator", data.generators, HOW),
  prompts: () => summaryTable("prompt", data.prompts,
    "Means with 95 % bootstrap intervals over the prompt's pictures in brackets; with few pictures these are too narrow."),
  failed: failedTable,
};
const models = data.extra.model ? [...new Set(data.extra.model.filter(Boolean))] : [];
byId("summary").textContent = `${count(data.rows, "picture")}${failures ? `, ${failures.toLocaleString("en")} of them failed` : ""}` +
  (models.length ? `; scored by ${models.join(", ")}` : "");
buildTabs();
buildViewer();
showTab(location.hash.slice(2));
