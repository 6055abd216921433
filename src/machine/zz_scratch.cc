#include "machine/machine.h"
namespace rooftree::machine {
Group::Group(const Group& o) : name(o.name), chip(o.chip), member(o.member ? std::make_unique<Group>(*o.member) : nullptr), count(o.count), fabric(o.fabric), host(o.host), power_max(o.power_max), prices(o.prices) {}
Group& Group::operator=(const Group& o) { Group c(o); *this = std::move(c); return *this; }
const Chip& Machine::chip() const { const Group* g=&root; while(!g->chip) g=g->member.get(); return *g->chip; }
Chip& Machine::chip() { Group* g=&root; while(!g->chip) g=g->member.get(); return *g->chip; }
double Machine::chip_count() const { double n=1; const Group* g=&root; while(!g->chip){ n*=g->count; g=g->member.get(); } return n; }
Host Machine::host_per_chip() const { return root.host; }
FlopPerSecond product_rate(const Chip& c, Arithmetic a) { return c.rate(a).matrix > FlopPerSecond{} ? c.rate(a).matrix : c.rate(a).vector; }
FlopPerByte ridge(const Chip& c, Arithmetic a) { return product_rate(c,a)/c.main_memory().bandwidth; }
}
