"""Does every tool that ./dev, tools/, tests/ and bench/ call come from tools/packages or from the base system?

Names are found in the text: words of shell scripts where a command may stand, the first literal of lists given to subprocess,
and find_program of meson. Each must belong, as dpkg knows it, to an essential package, to one that Debian marks as
required, to git, to a listed one, or to one that a listed one depends on. Modules must be Python's own or pytest."""
import ast
import os
import re
import subprocess
import sys

SHELL_WORDS = set('''! . : [ [[ { } break builtin case cd command continue declare done echo esac eval exit export false
    fi for function in kill local printf pwd read return set shift source test sudo trap true umask unset wait'''.split())
BEFORE_COMMANDS = set('! { if elif then else while until do exec time'.split())
CALLING_OTHERS = set('env xargs setsid sudo as_root'.split())   # the next word that is no option or assignment is a command, too
BASE_PACKAGES = {'git', 'apt'}
PATHS = ('/usr/bin', '/bin', '/usr/sbin', '/sbin')


class Shell:
    """Commands of a script: a word where a command may stand. Quoted and expanded text counts as the word "0"."""
    def __init__(self, text):
        self.text, self.at, self.found, self.functions, self.ends = text, 0, {}, set(), []
        self.is_calling = False
        self.script('')
        self.found = {name: line for name, line in self.found.items() if name not in self.functions}

    def next(self, length=1):
        self.at += length
        return self.text[self.at - length:self.at]

    def skip_past(self, end):
        self.at = self.text.index(end, self.at) + len(end)

    def expansion(self):
        """Behind a '$'."""
        if self.text.startswith('((', self.at):
            self.skip_past('))')
        elif self.text.startswith('(', self.at):
            self.next()
            self.script(')')
        elif self.text.startswith('{', self.at):
            self.skip_past('}')

    def quoted(self):
        """Behind a '"'."""
        while (c := self.next()) not in '"':
            if c == '\\':
                self.next()
            elif c == '$':
                self.expansion()

    def script(self, end):
        word, is_first, is_case, label, is_array = '', True, False, False, False
        while True:
            c = self.next()
            if c not in (' ', '\t', '\n', ';', '|', '&', '(', ')', '') or (c == '&' and word.endswith(('>', '<'))):
                if c == '#' and word == '':
                    self.skip_past('\n')
                    self.at -= 1
                elif c == '<' and (m := re.match(r"<'?(\w+)'?", self.text[self.at:])):
                    self.ends.append(m.group(1))
                    self.next(m.end())
                elif c == '\\':
                    word += self.next().strip('\n')
                elif c == "'":
                    self.skip_past("'")
                    word += '0'
                elif c == '"':
                    self.quoted()
                    word += '0'
                elif c == '$':
                    self.expansion()
                    word += '0'
                else:
                    word += c
                continue
            if c == '(' and self.text.startswith(')', self.at) and not word.endswith('='):
                self.functions.add(word)
                self.next()
                word, is_first = '', True
                continue
            is_array = is_array or (c == '(' and word.endswith('='))
            if word in ('esac', 'in') and (label or word == 'in'):
                label = word == 'in' and is_case
            if word and is_first and not label and not is_array:
                is_case = word == 'case'
                is_first = self.command(word)
            word = ''
            if c == '' or (c == ')' and end == ')' and not label and not is_array):
                return
            label = label or (c == ';' and self.text.startswith(';', self.at))
            if c == ')' and (label or is_array):
                label, is_array, is_first = False, False, not is_array
            elif c in '\n;|&(':
                is_first = True
            while c == '\n' and self.ends:
                self.skip_past('\n' + self.ends.pop(0) + '\n')

    def command(self, word):
        """Does a command follow?"""
        is_assignment = re.match(r'\w+\+?=', word)
        if not is_assignment and word not in BEFORE_COMMANDS | SHELL_WORDS and re.fullmatch(r'[A-Za-z][\w.+-]*', word):
            self.found.setdefault(word, self.text[:self.at].count('\n') + 1)
        self.is_calling = word in CALLING_OTHERS or (self.is_calling and word[0] in '-0')
        return bool(is_assignment or word in BEFORE_COMMANDS or self.is_calling)


def python_tools(text):
    """({name: line} of commands, {name: line} of modules)."""
    tools, modules = {}, {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.name.split('.')[0]] = node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules[node.module.split('.')[0]] = node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args \
                and node.func.attr in ('run', 'Popen', 'check_call', 'check_output', 'which'):
            first = node.args[0]
            while isinstance(first, ast.BinOp):   # [command, …] + more
                first = first.left
            first = first.elts[0] if isinstance(first, (ast.List, ast.Tuple)) and first.elts else first
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                tools[first.value] = node.lineno
    return tools, modules


def dpkg_allowed(listed):
    """Names of packages that may be used."""
    out = subprocess.run(['dpkg-query', '-W', '-f', '${Package}|${Essential}|${Priority}|${Depends},${Pre-Depends}\n'],
                         capture_output=True, text=True, check=True).stdout
    allowed = set(listed) | BASE_PACKAGES
    for line in out.split('\n'):
        name, essential, priority, depends = (line.split('|', 3) + [''] * 3)[:4]
        if essential == 'yes' or priority == 'required':
            allowed.add(name)
        if name in listed:
            allowed.update(re.findall(r'(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]*)', depends))
    return allowed


def owners(name):
    """Packages that own a command; None: it is not installed. What lies elsewhere (/usr/local) does not count."""
    for folder in PATHS:
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            continue
        names = {path, os.path.realpath(path)}
        names |= {n[len('/usr'):] for n in names if n.startswith('/usr/')}
        out = subprocess.run(['dpkg-query', '-S'] + sorted(names), capture_output=True, text=True).stdout
        return {package.split(':')[0].strip() for line in out.split('\n') if ': /' in line and 'diversion' not in line
                for package in line.split(': /')[0].split(',')}
    return None


def check(read, scripts, pythons, mesons, say):
    """Call say(path, line, text) for each tool from elsewhere. Debian alone can be asked."""
    if not os.path.exists('/usr/bin/dpkg-query'):
        return
    listed = {line.split()[1] for line in read('tools/packages').split('\n') if line and line[0] != '#'}
    allowed = dpkg_allowed(listed)
    own = {os.path.splitext(os.path.basename(p))[0] for p in pythons}
    uses = []
    for path in scripts:
        uses += [(path, line, name) for name, line in Shell(read(path)).found.items()]
    for path in mesons:
        for m in re.finditer(r"(?:find_program|run_command)\('([\w.+-]+)'", read(path)):
            uses.append((path, read(path)[:m.start()].count('\n') + 1, m.group(1)))
    for path in pythons:
        tools, modules = python_tools(read(path))
        uses += [(path, line, name) for name, line in tools.items() if '/' not in name]
        for name, line in modules.items():
            if name not in sys.stdlib_module_names and name not in own and name != 'pytest':
                say(path, line, "the module '%s' is neither Python's own nor of tools/packages" % name)
    known = {}
    for path, line, name in sorted(set(uses)):
        if name not in known:
            known[name] = owners(name)
        if known[name] is None:
            say(path, line, "'%s' is not there: no package of tools/packages brings it (./dev setup installs those)" % name)
        elif not known[name] & allowed:
            say(path, line, "'%s' comes from %s, which is not in tools/packages" % (name, ' '.join(sorted(known[name])) or 'no package'))
