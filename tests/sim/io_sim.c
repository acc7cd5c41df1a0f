/* The simulated implementation of io/. */
typedef int io_sim_unit;
