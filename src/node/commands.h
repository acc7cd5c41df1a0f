/* The commands of the program, one function each: arguments behind the command's name → exit status
 * (0 fine, 1 failed, 2 misused). */
#ifndef NODE_COMMANDS_H
#define NODE_COMMANDS_H

int command_serve(int argc, char **argv); /* serve.c */
int command_cluster(int argc, char **argv);
int command_cluster_restore(int argc,
                            char **argv); /* cluster_restore_command.c: restore is the first of argv */
int command_cluster_clone(int argc, char **argv);  /* cluster_clone_command.c: clone is */
int command_cluster_adopt(int argc, char **argv);  /* cluster_adopt_command.c: adopt is */
int command_health(int argc, char **argv);         /* health_command.c */
int command_config(int argc, char **argv);         /* config_command.c */
int command_query(int argc, char **argv);          /* query_command.c */
int command_verify(int argc, char **argv);         /* offline.c */
int command_verify_cluster(int argc, char **argv); /* cluster_verify_command.c: with --cluster among argv */
int command_fsck(int argc, char **argv);
int command_export(int argc, char **argv);
int command_snapshot(int argc, char **argv);
int command_retention(int argc, char **argv); /* snapshot.c */
int command_restore(int argc, char **argv);

#endif
