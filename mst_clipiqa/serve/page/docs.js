// The HTTP interface in Swagger UI, served from here; nothing is asked of any other server.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null });
