// All kernels as one unit to compile: the templates of product.h are most of the compiler's work, and are compiled once.

#include "mlp.cpp"
#include "recurrent.cpp"
#include "rmsprop.cpp"
#include "elementwise.cpp"
