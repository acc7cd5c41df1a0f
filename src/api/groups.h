/* The handlers of all API groups, for the table of routes. */
#ifndef API_GROUPS_H
#define API_GROUPS_H

#include "net/server.h"

/* prom_query.c */
void prom_query(void *context, struct net_request *request, struct net_response *response);
void prom_query_range(void *context, struct net_request *request, struct net_response *response);

/* prom_series.c */
void prom_series(void *context, struct net_request *request, struct net_response *response);
void prom_labels(void *context, struct net_request *request, struct net_response *response);
void prom_label_values(void *context, struct net_request *request, struct net_response *response);
void prom_query_exemplars(void *context, struct net_request *request, struct net_response *response);

/* prom_meta.c */
void prom_metadata(void *context, struct net_request *request, struct net_response *response);
void prom_status_tsdb(void *context, struct net_request *request, struct net_response *response);
void prom_status_buildinfo(void *context, struct net_request *request, struct net_response *response);
void prom_status_runtimeinfo(void *context, struct net_request *request, struct net_response *response);
void prom_status_flags(void *context, struct net_request *request, struct net_response *response);
void prom_status_config(void *context, struct net_request *request, struct net_response *response);
void prom_targets(void *context, struct net_request *request, struct net_response *response);
void prom_rules(void *context, struct net_request *request, struct net_response *response);
void prom_alerts(void *context, struct net_request *request, struct net_response *response);
void prom_alertmanagers(void *context, struct net_request *request, struct net_response *response);

/* prom_write.c */
void prom_write(void *context, struct net_request *request, struct net_response *response);
void prom_import(void *context, struct net_request *request, struct net_response *response);

/* admin.c */
void admin_landing(void *context, struct net_request *request, struct net_response *response);
void admin_healthy(void *context, struct net_request *request, struct net_response *response);
void admin_ready(void *context, struct net_request *request, struct net_response *response);
void admin_reload(void *context, struct net_request *request, struct net_response *response);
void admin_snapshot(void *context, struct net_request *request, struct net_response *response);
void admin_confirm_retention(void *context, struct net_request *request, struct net_response *response);
void admin_health(void *context, struct net_request *request, struct net_response *response);
void admin_cluster(void *context, struct net_request *request, struct net_response *response);
void admin_rpc(void *context, struct net_request *request, struct net_response *response);
void admin_metrics(void *context, struct net_request *request, struct net_response *response);

#endif
