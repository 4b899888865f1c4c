// The HTTP interface in Swagger UI, served locally; no other server is used.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null });
